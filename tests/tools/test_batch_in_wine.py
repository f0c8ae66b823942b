"""The .bat launchers, run by Wine's cmd with stand-ins for every Python: what they start, and how they end."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest

WINE = shutil.which("wine")
# pip's launcher for Windows is a program that runs what its appended "#!" line names, and passes on the exit code.
LAUNCHER = resources.files("pip") / "_vendor" / "distlib" / "t64.exe"
COPIED = ("pipeline.bat", "run.bat", "tools/setup.bat")
FOLDER = "a folder & Söhne (x86)"
ARGUMENTS = '--port 1 "a & b" "(c) ^ d" ""'
# A stand-in logs its arguments. GOOD names the Python that passes the check of versions. SETUP and PROGRAM are codes.
A_PYTHON = """@echo off
>>"{log}" echo {name} %2 %3 %4 @%TORCH_INDEX_URL%
if "%2"=="-c" if "%GOOD%"=="{name}" exit 0
if "%3"=="-c" if "%GOOD%"=="{name}%2" exit 0
if "%2"=="-c" exit 1
if "%3"=="-c" exit 1
exit %SETUP%
"""
ANY_PROGRAM = """@echo off
>>"{log}" echo {name} %*
>>"{log}" cd
exit %{code}%
"""
# Wine's own fc finds all files equal, so this one answers for it.
COMPARISON = """@echo off
>"{log}.{name}" echo %*
exit %FC%
"""

pytestmark = [
    pytest.mark.skipif(WINE is None, reason="Wine is not installed; test_batch_files.py reads the same files"),
    pytest.mark.skipif(not LAUNCHER.is_file(), reason="this pip has no launcher for Windows"),
]


@dataclass(frozen=True)
class Windows:
    """A machine: Wine's prefix, a folder for stand-ins and their log, and the project's folder."""

    prefix: Path
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / FOLDER

    def launch(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Starts a launcher with ARGUMENTS, where only `bin` adds programs to those of Windows."""
        start = self.folder / "start.bat"  # Wine's cmd does not understand quotes on its own command line
        start.write_text(f'@"%ROOT%\\{name}" {ARGUMENTS}\n', encoding="ascii", newline="\r\n")
        variables = {"FC": "1", "GOOD": "", "SETUP": "0", "PROGRAM": "0", "ROOT": windows(self.root)} | variables
        command = [str(WINE), "cmd", "/d", "/c", windows(start)]
        environment = wine_variables(self.prefix) | {"WINEPATH": windows(self.folder / "bin")} | variables
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=180, cwd=self.folder, env=environment
        )

    def put(self, path: str, name: str, text: str, code: str = "") -> None:
        """Puts a stand-in at `path`."""
        script = self.folder / f"{name}.bat"
        script.write_text(
            text.format(name=name, code=code, log=windows(self.folder / "log")), encoding="ascii", newline="\r\n"
        )
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("__main__.py", "")
        line = rf"#!C:\windows\system32\cmd.exe /d /c {windows(script)}" + "\r\n"
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(LAUNCHER.read_bytes() + line.encode("ascii") + archive.getvalue())

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def windows(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


def wine_variables(prefix: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "PYTHON", "TORCH_INDEX_URL")}
    quiet = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=", "LC_ALL": "C.UTF-8"}
    return kept | quiet | {"WINEPREFIX": str(prefix)}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("prefix")
    variables = wine_variables(made)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": variables}
    # Services stay behind, so nothing waits for the end of their output.
    subprocess.run(["wineserver", "--persistent=60"], **silent, check=True)
    subprocess.run([str(WINE), "wineboot", "--init"], **silent, check=True, timeout=300)
    yield made
    subprocess.run(["wineserver", "--kill"], **silent, check=False)


@pytest.fixture
def machine(prefix: Path, tmp_path: Path, project_root: Path) -> Windows:
    """A machine with this project, and no Python."""
    made = Windows(prefix, tmp_path)
    for name in COPIED:
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project_root / name, made.root / name)
    made.put("bin/fc.exe", "fc", COMPARISON)
    return made


def put_environment(machine: Windows) -> None:
    machine.put(f"{FOLDER}/.venv/Scripts/python.exe", "venv", ANY_PROGRAM, "PROGRAM")


def test_without_a_python_that_will_do_it_says_so(machine: Windows) -> None:
    done = machine.launch("run.bat")
    assert done.returncode == 1 and "was not found; install one of them, or set PYTHON" in done.stderr
    for name in ("py", "python"):
        machine.put(f"bin/{name}.exe", name, A_PYTHON)
    put_environment(machine)
    done = machine.launch("run.bat", PYTHON=r"C:\no\python.exe")
    assert done.returncode == 1 and "was not found; install one of them, or set PYTHON" in done.stderr
    assert [line.split(" -c")[0] for line in machine.log()] == [
        "py -3.12",
        "py -3.11",
        "py -3.13",
        "py -3.10",
        "python",
    ]


def test_a_failed_set_up_ends_the_launcher(machine: Windows) -> None:
    machine.put("bin/py.exe", "py", A_PYTHON)
    put_environment(machine)
    for name in ("run.bat", "pipeline.bat"):
        done = machine.launch(name, GOOD="py-3.11", SETUP="130")
        assert done.returncode == 1 and done.stdout == ""  # 130 in Windows: for Wine's "call" all errors are 1
        assert machine.log()[-1].startswith(r"py -3.11 tools\setup_env.py requirements.txt")
        assert not any(line.startswith("venv") for line in machine.log())


def test_the_page_starts_in_the_projects_folder_with_all_arguments(machine: Windows) -> None:
    machine.put("bin/python.exe", "python", A_PYTHON)
    put_environment(machine)
    done = machine.launch("run.bat", GOOD="python", PROGRAM="7", TORCH_INDEX_URL="https://mine/cu126")
    assert done.returncode == 7
    setup, program, folder = machine.log()[-3:]
    assert setup == r"python tools\setup_env.py requirements.txt  @https://mine/cu126"
    assert program.rstrip().endswith(rf'\.venv\Scripts\python.exe" -m ui.app {ARGUMENTS}')
    assert folder.endswith("hne (x86)")


def test_a_picture_is_made_from_the_callers_folder_by_a_named_python(machine: Windows) -> None:
    machine.put("my pythons & co/python.exe", "mine", A_PYTHON)
    put_environment(machine)
    mine = windows(machine.folder / "my pythons & co" / "python.exe")
    for named in (mine, f'"{mine}"'):
        done = machine.launch("pipeline.bat", GOOD="mine", PYTHON=named, PROGRAM="7")
        assert done.returncode == 7
        setup, program, folder = machine.log()[-3:]
        assert setup.startswith(r"mine tools\setup_env.py requirements.txt")
        assert program.rstrip().endswith(rf'\pipeline.py" {ARGUMENTS}')
        assert folder == windows(machine.folder)


def test_a_python_that_is_a_batch_file_comes_back(machine: Windows) -> None:
    """pyenv puts a python.bat on the PATH. Started without "call", it would never return to the launcher."""
    (machine.folder / "bin" / "python.bat").write_text('@"%BASE%" %*\n', encoding="ascii", newline="\r\n")
    machine.put("base/python.exe", "base", A_PYTHON)
    put_environment(machine)
    done = machine.launch("run.bat", GOOD="base", PROGRAM="7", BASE=windows(machine.folder / "base/python.exe"))
    assert done.returncode == 7
    assert machine.log()[1].startswith(r"base tools\setup_env.py requirements.txt")


@pytest.mark.parametrize(("code", "sets_up"), [("0", False), ("1", True)])
def test_set_up_runs_again_only_when_the_requirements_differ(machine: Windows, code: str, sets_up: bool) -> None:
    machine.put("bin/python.exe", "python", A_PYTHON)
    put_environment(machine)
    assert machine.launch("run.bat", GOOD="python", FC=code).returncode == 0
    compared = (machine.folder / "log.fc").read_text(encoding="utf-8", errors="replace").rstrip()
    assert compared.endswith(r'fc.exe" /b requirements.txt .venv\.installed\requirements.txt')
    assert any("setup_env.py" in line for line in machine.log()) is sets_up
    assert any("ui.app" in line for line in machine.log())
