"""Runs the command line in this process, and defines arguments for a picture that is quick to make."""

from __future__ import annotations

import pytest

import pipeline

SMALL = ["a cat", "64", "64", "1", "1", "--steps", "2", "--device", "cpu", "--quiet"]
FAST = [*SMALL, "--stable-fast"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Returns the exit code, standard output and standard error."""
    try:
        code = pipeline.main(list(arguments))
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
