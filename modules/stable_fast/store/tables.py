"""Tables of the fastest implementation of each fused op and shape: shipped with the program, and found by tuning.

What another card of the class measured is predicted from, but not chosen (see `of_class`).
What is found here is kept per GPU and per version of torch, Triton and cuDNN. Other people's tables: see exchange.py.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from modules.core.errors import quoted
from modules.core.typed import Unreadable, number, parse_json_object, text, whole
from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.candidates import is_position
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, ImplementationChoices
from modules.stable_fast.kernels.devices import CardClass, card_named
from modules.stable_fast.kernels.triton_import import TRITON_VERSION
from modules.stable_fast.store.cache import cache_folder, read_file, replace_file

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "tuned"
FORMAT = 1
NAME = re.compile(r"\w{1,64}", re.ASCII)  # of an op or an implementation


@dataclass
class Measured:
    """Measurements for one op and key: the winner, and the milliseconds of each implementation that ran."""

    op: str
    key: ChoiceKey
    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)

    def of_right_results(self) -> dict[str, float]:
        """The times, and infinity for what was faster than the winner: it was passed over for a wrong result."""
        least = self.milliseconds.get(self.name, 0.0)
        return {name: time if time >= least else math.inf for name, time in self.milliseconds.items()}


@dataclass(frozen=True, eq=False)
class Table:
    """The measurements in one file, and where they were made, as `environment` describes it."""

    environment: Mapping[str, str]
    choices: tuple[Measured, ...]


class OtherFormat(Unreadable):
    """A table of another version of the program."""


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")


def environment(device: torch.device) -> dict[str, str]:
    """Everything that can make one implementation faster than another."""
    return {
        "chip": devices.card_at(devices.number_of(device)).chip,
        "gpu": torch.cuda.get_device_properties(device).name,
        "torch": torch.__version__,
        "triton": str(TRITON_VERSION),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def shipped_path(folder: Path, described: Mapping[str, str]) -> Path:
    """Named after architecture and number of multiprocessors, so that cards with different memory share a table."""
    return folder / f"{described['chip']}.json"


def class_path(folder: Path, kind: CardClass) -> Path:
    """A table for cards of a class none of which has been measured yet."""
    return folder / f"class-{kind.value}.json"


def of_class(folder: Path, chip: str) -> Iterator[tuple[str, ChoiceKey, dict[str, float]]]:
    """Times on another card of the same class, by op and key: on the nearest in size, else in the class's table.

    They say nothing of the positions in a library's list of suggestions. Yields nothing without such a table.
    """
    if (card := card_named(chip)) is None:
        return
    measured = {path: card_named(path.stem) for path in sorted(folder.glob("sm*.json"))}
    relatives = {
        path: each.multiprocessors
        for path, each in measured.items()
        if each is not None and each.kind is card.kind and each != card
    }
    nearest = min(relatives, key=lambda path: abs(relatives[path] - card.multiprocessors), default=None)
    for row in read_choices(nearest or class_path(folder, card.kind)):
        times = row.of_right_results()
        yield row.op, row.key, {name: time for name, time in times.items() if not is_position(name)}


def choices_path(folder: Path, described: Mapping[str, str]) -> Path:
    return folder / f"tuned-{slug('-'.join(described.values()))}.json"


def read_choices(path: Path) -> list[Measured]:
    """The choices in a file; empty if unreadable."""
    table = read_table_file(path)
    return [] if table is None else list(table.choices)


def read_table_file(path: Path) -> Table | None:
    """What a file holds; None if unreadable. A damaged file is reported, since measuring again takes time."""
    try:
        return parse_table(read_file(path))
    except (OSError, OtherFormat):  # missing, or in an unreadable folder; failures to write are reported by the cache
        return None
    except ValueError as error:
        log.warning("tuning results in %s are unreadable and will be made again: %s", path, error)
        return None


def parse_table(content: str) -> Table:
    """Parses a file of choices, which is plain data. Raises OtherFormat, or Unreadable for anything else."""
    values = parse_json_object(content)
    if (found := whole(values.get("format"), "format")) != FORMAT:
        raise OtherFormat(f"its format is {found}, and this version reads {FORMAT}")
    described, rows = values.get("environment", {}), values.get("choices")
    if not isinstance(described, dict) or not isinstance(rows, list):
        raise Unreadable("it is not a table of choices")
    environment = {name: text(value, name) for name, value in described.items()}
    return Table(environment, tuple(measured_in(row) for row in rows))


def measured_in(row: Any) -> Measured:
    """One row of a file of choices. Raises Unreadable for anything else."""
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], dict):
        raise Unreadable("a row is not a list of op, key, name and times")
    op, key, name, times = row
    if not isinstance(key, list) or any(isinstance(part, (list, dict, type(None))) for part in key):
        raise Unreadable("the key of a shape is not a list of sizes and names")
    names = [plain_name(each) for each in (op, name, *times)]
    return Measured(names[0], tuple(key), names[1], {each: time_in(times[each]) for each in names[2:]})


def plain_name(value: Any) -> str:
    """The name of an op or an implementation. Raises Unreadable for anything else."""
    if not NAME.fullmatch(name := text(value, "name")):
        raise Unreadable(f"{quoted(name)} is not the name of a kernel")
    return name


def time_in(value: Any) -> float:
    if (time := number(value, "time")) < 0:
        raise Unreadable(f"time: {value} is negative")
    return time


def write_choices(path: Path, described: Mapping[str, str], measured: list[Measured]) -> None:
    """Adds to the file's contents."""
    merged = {(m.op, m.key): m for m in (*read_choices(path), *measured)}
    replace_file(path, table_text(Table(described, tuple(merged.values()))))


def table_text(table: Table) -> str:
    """The content of a table's file: a line for each choice."""
    rows = [[m.op, list(m.key), m.name, {k: round(v, 6) for k, v in m.milliseconds.items()}] for m in table.choices]
    environment = json.dumps(dict(table.environment))
    choices = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f'{{"format":{FORMAT},"environment":{environment},"choices":[\n{choices}\n]}}\n'


def load_choices(
    device: torch.device,
    folder: Path | None = None,
    choices: ImplementationChoices = CHOICES,
    imported: Table | None = None,
) -> int:
    """Applies shipped and saved choices, and before these, those of an imported table. Returns the number of choices.

    The choices of another imported table no longer hold. A saved graph has no choices in it, so it stays valid.
    """
    described = environment(device)
    shipped = read_choices(shipped_path(SHIPPED, described))
    own = read_choices(choices_path(folder or cache_folder(), described))
    choices.chosen |= {(m.op, m.key): m.name for m in (*shipped, *own)}
    if imported is not None and (reason := other_card(imported, described)):  # the network has moved since the import
        log.warning("The imported table has no effect, since %s.", reason)
        imported = None
    given = imported.choices if imported is not None else ()
    choices.imported = {(m.op, m.key): m.name for m in given}
    here = ((m.op, m.key, m.of_right_results()) for m in (*shipped, *own, *given))
    choices.learn(chain(of_class(SHIPPED, described["chip"]), here))  # what was measured here goes before
    return len(choices.chosen.keys() | choices.imported.keys())


def other_card(table: Table, described: Mapping[str, str]) -> str:
    """Why a table's choices are not for the card described; "" if they are."""
    if table.environment["chip"] == described["chip"]:
        return ""
    theirs, ours = (f"{each['gpu']} ({each['chip']})" for each in (table.environment, described))
    return f"it was measured on {theirs}, and this GPU is {ours}"
