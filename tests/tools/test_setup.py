"""The launchers' set-up, with a stand-in for .venv's Python: when packages are installed, and the messages."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools import setup_env

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the .sh launchers")

COPIED = ("pipeline.sh", "run.sh", "test.sh", "tools/setup.sh", "tools/setup_env.py")
# Stands in for .venv/bin/python: logs installs, sleeps or fails on demand, and echoes a program's arguments.
STAND_IN = """#!/usr/bin/env bash
root="$(cd "$(dirname "$0")/../.." && pwd)"
case "$*" in
    "-m pip --version") exit 0 ;;
    "-c "*) cat "$root/version" ;;
    "-m pip install"*)
        echo "begin $*" >> "$root/installs"
        [ -s "$root/seconds" ] && exec sleep "$(cat "$root/seconds")"
        echo "some pip chatter"
        exit "$(cat "$root/code")" ;;
    *) printf 'RUN'; printf ' [%s]' "$@"; printf '\\n'; echo "cwd $PWD" >&2; exit 7 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path, project_root: Path) -> Path:
    """The launchers in a folder with spaces, next to a .venv with the stand-in as its Python."""
    root = tmp_path / "a folder with 'spaces' & (signs)"
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project_root / name, root / name)
    (root / "requirements.txt").write_text("torch>=2  # a reason\n")
    (root / "requirements-dev.txt").write_text("pytest\n")
    for name, text in {"seconds": "", "code": "0", "version": "3 11"}.items():
        (root / name).write_text(text)
    stand_in = root / ".venv" / "bin" / "python"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    (root / ".venv" / "pyvenv.cfg").touch()
    return root


def launch(root: Path, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    command = [str(root / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", env=environment, check=False)


def installs(root: Path) -> list[str]:
    path = root / "installs"
    return [line for line in path.read_text().splitlines() if line.startswith("begin")] if path.exists() else []


def test_first_start_installs_and_later_ones_do_not(checkout: Path) -> None:
    first = launch(checkout, "pipeline.sh", "a cat", "--seed", "7")
    assert first.stdout == f"RUN [{checkout}/pipeline.py] [a cat] [--seed] [7]\n"  # no output from pip
    assert first.returncode == 7
    assert "installing requirements.txt" in first.stderr and "chatter" not in first.stderr
    again = launch(checkout, "pipeline.sh", "", "*", "$HOME")
    assert again.stdout == f"RUN [{checkout}/pipeline.py] [] [*] [$HOME]\n"
    assert again.stderr == "cwd /\n"  # relative file names refer to the caller's folder
    assert len(installs(checkout)) == 1


def test_changed_requirements_are_installed_once_more(checkout: Path) -> None:
    launch(checkout, "pipeline.sh")
    (checkout / "requirements.txt").write_text("torch>=3\n")
    for _ in range(2):
        launch(checkout, "pipeline.sh")
    assert len(installs(checkout)) == 2


def test_tests_install_both_files_and_run_in_the_root(checkout: Path) -> None:
    done = launch(checkout, "test.sh", "-k", "x or y")
    assert done.stdout == "RUN [-m] [pytest] [-k] [x or y]\n" and done.returncode == 7
    assert f"cwd {checkout}" in done.stderr
    assert installs(checkout)[0].count("-r ") == 2
    assert launch(checkout, "pipeline.sh").stderr == "cwd /\n"  # its requirements are already included


def test_the_web_launcher_runs_the_module(checkout: Path) -> None:
    done = launch(checkout, "run.sh", "--port", "1")
    assert done.stdout == "RUN [-m] [ui.app] [--port] [1]\n"


def test_a_link_to_a_launcher_finds_the_project(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(checkout / "pipeline.sh")
    assert f"[{checkout}/pipeline.py]" in launch(tmp_path, "link").stdout


def test_a_failed_install_is_explained_and_tried_again(checkout: Path) -> None:
    (checkout / "code").write_text("1")
    done = launch(checkout, "pipeline.sh")
    assert done.returncode == 1 and done.stdout == ""
    assert "some pip chatter" in done.stderr and "could not install" in done.stderr and "Traceback" not in done.stderr
    (checkout / "code").write_text("0")
    assert launch(checkout, "pipeline.sh").returncode == 7
    assert len(installs(checkout)) == 2


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_install_leaves_no_stamp_and_no_pip(checkout: Path, number: signal.Signals) -> None:
    (checkout / "seconds").write_text("30")
    command = [sys.executable, str(checkout / "tools/setup_env.py"), "requirements.txt"]
    # A test suite that runs in the background passes on an ignored SIGINT.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    wait_for(lambda: installs(checkout))
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else 143) and "Traceback" not in errors
    assert not list((checkout / ".venv").glob(".installed/*"))
    (checkout / "seconds").write_text("")
    assert launch(checkout, "pipeline.sh").returncode == 7  # the lock is free again


def test_two_at_once_install_once(checkout: Path) -> None:
    (checkout / "seconds").write_text("1")
    command = [sys.executable, str(checkout / "tools/setup_env.py"), "requirements.txt"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=30)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert len(installs(checkout)) == 1
    assert sum("waiting for it" in text for text in texts) == 1


def test_another_place_for_torch(checkout: Path) -> None:
    launch(checkout, "pipeline.sh", TORCH_INDEX_URL="file:///some/where")
    first, second = installs(checkout)
    assert first.endswith("torch>=2 --index-url file:///some/where") and "-r " in second


def test_an_unsupported_environment_is_explained(checkout: Path) -> None:
    (checkout / "version").write_text("3 9")
    done = launch(checkout, "pipeline.sh")
    assert done.returncode == 1 and ".venv has Python 3.9, but 3.10 to 3.13 is needed; delete" in done.stderr


def test_no_python_is_explained(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "cmp", "readlink", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = launch(checkout, "pipeline.sh", PATH=str(tools), PYTHON="/no/python")
    assert done.returncode == 1 and done.stderr.startswith("Python 3.10, 3.11, 3.12 or 3.13 was not found")


def test_a_broken_environment_is_rebuilt(checkout: Path) -> None:
    """Creates a real venv, because the stand-in's folder looks half-made, as after an interrupted run."""
    (checkout / ".venv/pyvenv.cfg").unlink()
    (checkout / "requirements.txt").write_text("# nothing to install\n")
    done = launch(checkout, "tools/setup.sh", "requirements.txt")
    assert done.returncode == 0, done.stderr
    version = subprocess.run([checkout / ".venv/bin/python", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("Python 3.1")


@pytest.mark.parametrize(
    ("system", "driver", "chosen", "index", "kernels"),
    [
        ("win32", "581.15\n", None, "https://download.pytorch.org/whl/cu130", True),
        ("win32", "566.03\n566.03\n", None, "https://download.pytorch.org/whl/cu126", True),
        ("win32", "581.15\n", "https://mine", "https://mine", True),
        ("win32", None, None, None, False),
        ("win32", "NVIDIA-SMI has failed", None, None, False),
        ("linux", "581.15\n", None, None, False),
    ],
)
def test_windows_with_a_gpu_gets_a_cuda_build_and_triton(
    system: str, driver: str | None, chosen: str | None, index: str | None, kernels: bool, monkeypatch: Any
) -> None:
    def nvidia_smi(command: list[str], **_: Any) -> Any:
        if driver is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(stdout=driver)

    monkeypatch.setattr(setup_env, "subprocess", SimpleNamespace(run=nvidia_smi, SubprocessError=OSError))
    monkeypatch.setattr(setup_env, "sys", SimpleNamespace(platform=system))
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    if chosen:
        monkeypatch.setenv("TORCH_INDEX_URL", chosen)
    assert setup_env.torch_source() == (index, kernels)


def test_a_cuda_build_is_installed_before_what_needs_torch(tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(setup_env, "torch_source", lambda: ("https://cuda", True))
    monkeypatch.setattr(setup_env, "pip", lambda arguments, *_: calls.append(arguments))
    monkeypatch.setattr(setup_env, "STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(setup_env, "LOG", tmp_path / "log")
    with open(tmp_path / "lock", "w") as held:
        setup_env.install(["requirements.txt"], held)
    torch, rest = calls
    assert torch[0].startswith("torch>=") and torch[1:] == ["--index-url", "https://cuda"]
    assert rest[0] == "-r" and rest[-1].startswith("triton-windows>=")
    assert (tmp_path / "stamps" / "requirements.txt").exists()


def test_what_is_installed_is_what_the_requirements_say() -> None:
    assert setup_env.requirement("requirements.txt", "torch").startswith("torch>=")
    assert setup_env.requirement("requirements-extra.txt", "triton-windows").startswith("triton-windows>=")
