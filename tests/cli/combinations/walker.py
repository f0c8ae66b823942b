"""Runs the command line once per line of JSON on standard input, so that torch is imported only once for many runs.

A line is {"words": [...], "stop_in": name or null, "presses": 1}. When the function `stop_in` begins, Ctrl-C is pressed
`presses` times.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pipeline
from modules.core import paths
from modules.gallery import output


def stopping(function: Any, presses: int) -> Any:
    def stopped(*arguments: Any, **named: Any) -> Any:
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments, **named)

    return stopped


def walk(words: list[str], stop_in: str | None, presses: int) -> int:
    if stop_in is None:
        return pipeline.main(words)
    module, _, name = stop_in.rpartition(".")
    original = getattr(importlib.import_module(module), name)
    with mock.patch(stop_in, stopping(original, presses)):
        return pipeline.main(words)


def main() -> None:
    paths.PROJECT_ROOT = output.PROJECT_ROOT = Path(sys.argv[1])
    print("ready", flush=True)
    while line := sys.stdin.readline():
        print(f"walk ended with {walk(**json.loads(line))};", flush=True)


if __name__ == "__main__":
    main()
