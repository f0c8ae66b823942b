"""A file that a script writes at its end, as a value of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def file_to_write(text: str) -> Path:
    """Makes the file's folder, so that hours of work do not end where it is missing."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cause = error.strerror or error
        raise argparse.ArgumentTypeError(f"the folder of {text} cannot be made ({cause}); name another") from error
    return path
