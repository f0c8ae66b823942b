"""Ctrl-C on the command line: one line and exit code 130 at any moment, and only complete pictures."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_ctrl_c_ends_within_a_step_and_leaves_whole_pictures_only(project: Path) -> None:
    code = (
        "import sys; from modules.core import paths; from modules.gallery import output; from pathlib import Path\n"
        f"paths.PROJECT_ROOT = output.PROJECT_ROOT = Path({str(project)!r})\n"
        "import pipeline; sys.exit(pipeline.main(sys.argv[1:]))"
    )
    arguments = ["a cat", "64", "64", "500", "1", "--steps", "20", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline().strip()  # one picture is done, the next is in progress
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "Cancelled" in err
    assert "Stopping " in err and "Ctrl-C again stops at once" in err  # reported at once: a step may include compiling
    assert time.monotonic() - asked < 30
    files = [p for p in (project / "output").rglob("*") if p.is_file() and p.suffix != ".json"]
    assert {str(p) for p in files} == {first, *out.split()}
    for path in files:
        Image.open(path).load()


@pytest.mark.parametrize("early", ["cli.main", "argparse", "modules.generation.options"])
def test_ctrl_c_during_the_first_imports_is_one_line(early: str) -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {early!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "import pipeline; sys.exit(pipeline.main(['a cat']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


def test_ctrl_c_while_python_ends_changes_nothing() -> None:
    """Checks that all output is complete before torch's exit, which takes a second."""
    code = (
        "import atexit, os, runpy, signal, sys\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['pipeline.py', '--list', 'samplers']\n"
        "runpy.run_path('pipeline.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "euler" in done.stdout
