"""The command line's way in; what it does is in cli/main.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; `argv` in place of the command line's arguments."""
    try:
        from cli.main import main as run  # inside, so that Ctrl-C is one line from the first import on

        return run(argv)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
