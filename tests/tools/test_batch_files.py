"""The .bat launchers, read line by line, as CI has no Windows: labels, quotes, line ends, and a look at every code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import setup_env

FILES = ("pipeline.bat", "run.bat", "tools/setup.bat")
STARTS_A_PROGRAM = re.compile(r"^(call (?!:)|%found%|\S*python\.exe|fc )|\) do (call (?!:)|fc )", re.IGNORECASE)
JUMP = re.compile(r"\b(?:goto |call :)(\w+)", re.IGNORECASE)
OWN_FOLDER = re.compile(r"%~[a-z]*0")


def faults(text: str) -> Iterator[str]:
    """Yields what cmd would do wrong with this batch file."""
    if not text.isascii() or re.search(r"(?<!\r)\n", text):
        yield "a character outside ASCII, or a line that does not end in CR LF: cmd loses labels"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    code = [line for line in lines if not line.lower().startswith("rem ")]
    if code[:2] != ["@echo off", "setlocal"]:
        yield "it prints its commands, or changes the variables of its caller"
    yield from faulty_jumps(code)
    block = 0
    for line, following in zip(code, [*code[1:], ""], strict=True):
        yield from faulty_quotes(line)
        if STARTS_A_PROGRAM.search(line) and not reads_code(following):
            yield f"nobody looks at the exit code: {line}"
        if block and "%errorlevel%" in line:
            yield f"cmd puts a value in before the block runs: {line}"
        block += line.endswith("(") - line.startswith(")")


def reads_code(line: str) -> bool:
    return bool(re.match(r"if (%errorlevel% |(not )?errorlevel )|exit /b %errorlevel%$", line))


def faulty_jumps(code: list[str]) -> Iterator[str]:
    labels = [line[1:] for line in code if line.startswith(":")]
    wanted = {name for line in code for name in JUMP.findall(line)}
    if set(labels) != wanted or len(labels) != len(set(labels)):
        yield f"labels {labels}, but jumps to {sorted(wanted)}"
    for before, line in zip(code, [*code[1:], ":end"], strict=True):
        if line.startswith(":") and not before.startswith("exit /b"):
            yield f"it runs into {line} from: {before}"


def faulty_quotes(line: str) -> Iterator[str]:
    for found in OWN_FOLDER.finditer(line):
        if line.count('"', 0, found.start()) % 2 == 0:
            yield f"a space or & in the folder's name splits: {line}"
        if re.search(r"\bcall ", line):
            yield f"call expands the folder's name once more: {line}"


def read(root: Path, name: str) -> str:
    return (root / name).read_bytes().decode("utf-8")


@pytest.mark.parametrize("name", FILES)
def test_the_launchers_have_no_such_fault(name: str, project_root: Path) -> None:
    assert list(faults(read(project_root, name))) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "fault"),
    [
        ("run.bat", "\r\n", "\n", "CR LF"),
        ("run.bat", "setlocal\r\n", "", "variables of its caller"),
        ("run.bat", '"%~dp0"', "%~dp0", "splits"),
        ("pipeline.bat", '"%~dp0pipeline.py"', "%~dp0pipeline.py", "splits"),
        ("pipeline.bat", "call tools", 'call "%~dp0tools"', "once more"),
        ("pipeline.bat", "if %errorlevel% neq 0 exit /b %errorlevel%\r\n", "", "exit code: call tools"),
        ("run.bat", "ui.app %*\r\nexit /b %errorlevel%", "ui.app %*\r\nexit /b 0", "exit code: .venv"),
        ("tools/setup.bat", "    if errorlevel 1 goto find\r\n", "", "exit code: fc /b"),
        ("tools/setup.bat", "if %errorlevel% equ 0 set found=%*\r\n", "", "exit code: call %*"),
        ("tools/setup.bat", ":setup", ":start", "jumps to"),
        ("tools/setup.bat", "exit /b 1\r\n", "", "runs into :setup"),
        ("tools/setup.bat", "exit /b %errorlevel%\r\n", "", "runs into :try"),
        ("tools/setup.bat", "if errorlevel 1", "if %errorlevel% neq 0", "before the block runs"),
    ],
)
def test_each_fault_is_found(name: str, right: str, wrong: str, fault: str, project_root: Path) -> None:
    text = read(project_root, name)
    assert right in text
    assert any(fault in found for found in faults(text.replace(right, wrong)))


def test_windows_takes_the_pythons_and_requirements_that_linux_takes(project_root: Path) -> None:
    bat, sh = (read(project_root, f"tools/setup.{kind}") for kind in ("bat", "sh"))
    check = re.findall(r"import sys; sys\.exit\([^\"']+\)\)?", bat)
    assert check == re.findall(r"import sys; sys\.exit\([^\"']+\)\)?", sh) and len(check) == 1
    (_, oldest), (_, newest) = setup_env.SUPPORTED
    tried = re.findall(r"3\.(\d+)", next(line for line in bat.splitlines() if "call :try py " in line))
    assert sorted(int(minor) for minor in tried) == list(range(oldest, newest + 1))
    for name, program in (("run", "-m ui.app"), ("pipeline", "pipeline.py")):
        for kind in ("bat", "sh"):
            text = read(project_root, f"{name}.{kind}")
            assert program in text and re.search(rf"setup\.{kind}\"? requirements\.txt\s", text)
