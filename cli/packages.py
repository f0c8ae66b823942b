"""Explains that a Python package is missing (this file imports only the standard library)."""

from __future__ import annotations

import os
from pathlib import Path

from modules.core.errors import OptionsError

ROOT = Path(__file__).resolve().parents[1]
OUR_PACKAGES = ("cli", "ui", "modules")


def missing_package(error: Exception, starter: str) -> OptionsError | None:
    """Returns our error, or None for other kinds of errors. `starter` is the script that sets up the right Python."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    package = (name or "").partition(".")[0]
    if package in ("", *OUR_PACKAGES):
        return None
    script = f"{starter}.bat" if os.name == "nt" else f"./{starter}.sh"
    return OptionsError(f"This Python has no {package}: start {script} in {ROOT}, which sets up its own Python.")
