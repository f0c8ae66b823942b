"""Tables of choices that people exchange: what tuning found here is written to a file, and such a file is read.

A file is plain data. The names in it are looked up among our implementations, and nothing in it is ever run.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch

from modules.core.errors import OptionsError, quoted
from modules.core.files import read_text, write_whole
from modules.core.typed import Unreadable
from modules.stable_fast.store.cache import cache_folder
from modules.stable_fast.store.tables import (
    Table,
    choices_path,
    environment,
    other_card,
    parse_table,
    read_choices,
    table_text,
)

log = logging.getLogger(__name__)

FACTS = ("chip", "gpu", "torch", "triton", "cudnn")
LONGEST_FACT = 1000  # characters
CHIP = re.compile(r"sm\d{2,3}-\d{1,4}")  # a part of the file names of shipped tables


def read_table(path: Path) -> Table:
    """Reads a table that was exported. Raises OptionsError, with the reason, for any other file."""
    content = read_text(path, "The table of kernels")
    try:
        table = parse_table(content)
        check_described(table)
    except Unreadable as error:
        raise OptionsError(
            f"The table of kernels {quoted(path)} cannot be used ({error}): export it again with --stable-fast-export."
        ) from error
    return table


def check_described(table: Table) -> None:
    """Raises Unreadable for a table that does not say where it was measured, or that is empty."""
    if missing := [name for name in FACTS if not table.environment.get(name)]:
        raise Unreadable(f"it does not say with which {', '.join(missing)} it was measured")
    for name in FACTS:  # they are told to people
        if not (value := table.environment[name]).isprintable() or len(value) > LONGEST_FACT:
            raise Unreadable(f"{name}: {quoted(value)} is not a short line of text")
    if not CHIP.fullmatch(chip := table.environment["chip"]):
        raise Unreadable(f"chip: {quoted(chip)} is not a card's architecture and size, such as sm89-128")
    if not table.choices:
        raise Unreadable("there are no choices in it")


def table_for(path: Path | str, device: torch.device) -> Table:
    """Reads a table for networks on this device. Raises OptionsError as `read_table` and `check_card` do."""
    table = read_table(Path(path))
    check_card(table, device)
    return table


def check_card(table: Table, device: torch.device) -> None:
    """Raises OptionsError for another card's table. A warning says what else differs, such as the version of torch."""
    if device.type != "cuda":
        log.warning("The table of kernels has no effect on %s: it is for an NVIDIA GPU.", device)
        return
    described = environment(device)
    if reason := other_card(table, described):
        raise OptionsError(
            f"The table of kernels cannot be used, since {reason}: leave it out, or get one for this GPU."
        )
    differing = [name for name in FACTS if table.environment[name] != described[name]]
    if differing:
        theirs, ours = (
            ", ".join(f"{name} {each[name]}" for name in differing) for each in (table.environment, described)
        )
        log.warning(
            "The table of kernels was measured with %s, and here is %s: it may not name the fastest.", theirs, ours
        )


def export_table(path: Path, device: torch.device) -> Table:
    """Writes to a file what tuning has found on this GPU with these versions. Returns it.

    Raises OptionsError if nothing was found yet, OSError if the file cannot be written.
    """
    described = environment(device)
    table = Table(described, tuple(read_choices(choices_path(cache_folder(), described))))
    if not table.choices:
        raise OptionsError(
            f"Nothing has been tuned on this {described['gpu']} with torch {described['torch']} yet: "
            "make a picture with --stable-fast --stable-fast-tune 30 first."
        )
    write_whole(path, table_text(table).encode())
    return table
