"""The command line in a real, narrow terminal, started by a shell."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

COLUMNS = 20
ROOT = Path(__file__).parents[2]
START = (
    "import sys; from modules.core import paths; from modules.gallery import output; from pathlib import Path\n"
    "paths.PROJECT_ROOT = Path(sys.argv.pop(1)); import pipeline; sys.exit(pipeline.main(sys.argv[1:]))"
)


def in_terminal(columns: int, *arguments: str) -> tuple[int, str]:
    """Returns the exit code and everything sent to the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", START, *arguments], cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    sent = b""
    try:
        while part := os.read(ours, 65536):
            sent += part
    except OSError:  # EIO: the other side is closed
        pass
    os.close(ours)
    return process.wait(), sent.decode()


def test_four_pictures_in_a_narrow_terminal(models: Path, tmp_path: Path) -> None:
    words = ["a cat", "64", "64", "2", "2", "--steps", "1", "--device", "cpu", "--seed", "11"]
    code, sent = in_terminal(COLUMNS, str(models), *words, "--output-dir", str(tmp_path / "o"))
    pictures = sorted((tmp_path / "o").rglob("*.png"))
    assert code == 0 and [path.stem.split("-")[1] for path in pictures] == ["11", "12", "13", "14"], sent
    lines = sent.replace("\r", "\n").split("\n")
    assert [line for line in lines if line.endswith(".png")] == [str(path) for path in pictures]
    assert all(len(line) <= COLUMNS for line in lines if not line.endswith(".png")), sent
