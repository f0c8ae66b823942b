"""Entry point of the command line; the work is in cli/main.py."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

STOPPED = 130  # the exit code in shells for a program stopped by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; `argv` replaces the command line's arguments."""
    try:
        from cli.streams import forgive_errors  # imported here, so that Ctrl-C prints one line from the first import on

        forgive_errors()
        from cli.main import main as run

        return run(argv)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return STOPPED
    except ModuleNotFoundError as error:  # raised by the first imports
        from cli.packages import missing_package

        missing = missing_package(error, "pipeline")
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        return missing.exit_code


if __name__ == "__main__":
    code = main()
    if code != STOPPED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all output is done, but Python takes time to exit
    sys.exit(code)
