"""Runs --stable-fast-export FILE: writes what tuning has found on this GPU, to be sent to others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.streams import tell, warn
from cli.values import path
from modules.core.errors import OptionsError, OutputError, quoted

ALLOWED = ("stable_fast_export", "device", "json", "quiet")
SUFFIX = ".json"


def read_export_path(text: str) -> Path:
    """Reads the value of --stable-fast-export. Raises OptionsError unless it ends in .json: a typo may name a model."""
    found = path(text)
    if found.suffix.lower() != SUFFIX:
        raise OptionsError(f"--stable-fast-export {quoted(text)}: the name must end in {SUFFIX}, as in my-gpu.json.")
    return found


def run_export(given: Mapping[str, Any]) -> int:
    """Writes the table and prints its path; returns the exit code. Raises OptionsError and OutputError."""
    if others := [name for name in given if name not in ALLOWED]:
        option = f"--{others[0].replace('_', '-')}"
        raise OptionsError(
            f"--stable-fast-export writes what earlier runs with --stable-fast-tune have found: leave out {option}."
        )
    from modules.core.device import choose_device
    from modules.stable_fast.store.exchange import export_table

    device, file = choose_device(given.get("device")), given["stable_fast_export"]
    if device.type != "cuda":
        raise OptionsError(f"--stable-fast-export needs an NVIDIA GPU, since only that is tuned, and this is {device}.")
    try:
        table = export_table(file, device)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"The table {quoted(file)} cannot be written ({reason}); choose another place.") from error
    count = len(table.choices)
    tell(json.dumps({"table": str(file), "choices": count}) if given.get("json") else str(file))
    if not given.get("quiet"):
        warn(f"Choices for {table.environment['gpu']}: {count}; docs/stable_fast.md says how to send them to us.")
    return 0
