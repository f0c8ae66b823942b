"""What Ray reads from the environment when it is imported; call `prepare_import` before anything imports it."""

from __future__ import annotations

import os
from pathlib import Path

TOKEN_MODE = "RAY_AUTH_MODE"
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # where Ray looks first, before its file in the home folder
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it sends nothing to anyone
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # it prints nothing of its own, such as a worker's end, on standard output
}


def prepare_import() -> None:
    """Makes Ray private and quiet, and lets it show the token of a cluster that it is given the address of."""
    os.environ.update(SETTINGS)
    if any(name in os.environ for name in TOKENS) or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault(TOKEN_MODE, "token")
