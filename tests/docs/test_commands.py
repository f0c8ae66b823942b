"""Runs every documented command unchanged: in a terminal with progress bars, and into a pipe."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pexpect
import pytest
from PIL import Image

from cli.arguments import parse_arguments
from modules.tasks.prompt_file import read_prompt_file
from tests.docs.fences import commands
from tests.docs.stand_ins import SIZES, replaced

PATIENCE = 240  # seconds; only needed on a busy machine
COMMANDS = [command for command in commands() if command.startswith("./pipeline.sh")]
# Files of prompts into a pipe: tests/cli/test_prompt_batch.py; --doctor: tests/stable_fast/doctor/test_diagnose.py.
INTO_A_PIPE = next(command for command in COMMANDS if "--seed" in command)
OTHERS = {"./run.sh"}  # tests/docs/test_server.py
OF_THE_API = {command for command, place in commands().items() if place.startswith("api.md")}  # tests/docs/test_api.py


def pictures_of(clone: Path, command: str) -> int:
    """Returns the number of pictures that the command should make, according to its arguments."""
    given = parse_arguments(shlex.split(command)[1:])
    if "doctor" in given or "list" in given:
        return 0
    lines = len(read_prompt_file(clone / given["prompts"])) if "prompts" in given else 1
    return lines * given.get("number", 1) * given.get("batch", 1)


def check(clone: Path, command: str, code: int | None, shown: str) -> None:
    """`shown` is all of standard output and, in a terminal, of standard error."""
    assert code == 0, shown
    assert "Traceback" not in shown and "error:" not in shown
    paths = [line for line in shown.splitlines() if line.endswith(".png")]
    assert len(paths) == len(set(paths)) == pictures_of(clone, command), shown
    for path in paths:
        with Image.open(path) as picture:
            picture.load()


def test_no_command_is_forgotten() -> None:
    assert set(commands()) == {*COMMANDS, *OTHERS, *OF_THE_API}


@pytest.mark.parametrize(
    "command", [pytest.param(command, marks=[pytest.mark.slow] * ("--cluster" in command)) for command in COMMANDS]
)
def test_in_a_terminal(clone: Path, command: str) -> None:
    (clone / "output" / "prompts_done.jsonl").unlink(missing_ok=True)  # left by the same command in a pipe
    terminal = pexpect.spawn("bash", ["-c", replaced(command, SIZES)], cwd=str(clone), timeout=PATIENCE)
    terminal.expect(pexpect.EOF)
    terminal.close()
    shown = terminal.before.decode()
    check(clone, command, terminal.exitstatus, shown)
    assert pictures_of(clone, command) == 0 or "100%" in shown, "the bar is part of it"


def test_into_a_pipe(clone: Path) -> None:
    arguments = ["bash", "-c", replaced(INTO_A_PIPE, SIZES)]
    done = subprocess.run(arguments, cwd=clone, capture_output=True, text=True, timeout=PATIENCE, check=False)
    check(clone, INTO_A_PIPE, done.returncode, done.stdout)
    assert "Traceback" not in done.stderr
    assert all(line.endswith(".png") for line in done.stdout.splitlines()), "nothing but paths"
