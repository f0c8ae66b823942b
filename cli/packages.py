"""What to say where the Python that was started lacks a package (nothing but Python itself is imported here)."""

from __future__ import annotations

import os
from pathlib import Path

from modules.core.errors import OptionsError

ROOT = Path(__file__).resolve().parents[1]
OUR_PACKAGES = ("cli", "ui", "modules")


def missing_package(error: Exception, starter: str) -> OptionsError | None:
    """`starter` is the script that sets up the right Python, without its ending; None for any other error."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    package = (name or "").partition(".")[0]
    if package in ("", *OUR_PACKAGES):
        return None
    script = f"{starter}.bat" if os.name == "nt" else f"./{starter}.sh"
    return OptionsError(f"This Python has no {package}: start {script} in {ROOT}, which brings a Python of its own.")
