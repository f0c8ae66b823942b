"""The command line's way in; what it does is in cli/main.py."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

STOPPED = 130  # what shells say of a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; `argv` in place of the command line's arguments."""
    try:
        from cli.streams import forgive_errors  # inside, so that Ctrl-C is one line from the first import on

        forgive_errors()
        from cli.main import main as run

        return run(argv)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return STOPPED
    except ModuleNotFoundError as error:  # among the first imports
        from cli.packages import missing_package

        missing = missing_package(error, "pipeline")
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        return missing.exit_code


if __name__ == "__main__":
    code = main()
    if code != STOPPED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is told, and Python takes its time to end
    sys.exit(code)
