"""Merges tables of kernels that users sent us into the shipped ones: `python -m tools.merge_tables FILE...`.

Each card has a file of its own, so only the files of cards with a given table change. If several tables have a row for
a shape, the one whose winner took least time is kept, the shipped one before others. A row without a time says nothing
and is left out. A merge that is repeated changes no byte, and the order of the files does not matter.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import LightDiffusionError, OptionsError, OutputError, quoted
from modules.core.files import write_whole
from modules.stable_fast.store.exchange import FACTS, read_table
from modules.stable_fast.store.tables import SHIPPED, Measured, Table, shipped_path, table_text

BETWEEN = ", "  # the values of a fact, in a table of several measurements


@dataclass(frozen=True)
class Row:
    """A row of a table, with the table that it is from."""

    measured: Measured
    table: Table

    @property
    def time(self) -> float:
        """Milliseconds of the winner; infinite if it was not timed."""
        return self.times.get(self.measured.name, math.inf)

    @property
    def times(self) -> dict[str, float]:
        """Milliseconds as they are written, without those that are too short to be true."""
        rounded = {name: round(time, 6) for name, time in self.measured.milliseconds.items()}
        return {name: time for name, time in rounded.items() if time > 0}

    @property
    def key(self) -> str:
        return json.dumps([self.measured.op, *self.measured.key])

    @property
    def faster(self) -> list[str]:
        """Implementations that took less time than the winner, and so gave a wrong result."""
        return [name for name, time in self.times.items() if time < self.time < math.inf]


@dataclass(frozen=True)
class Merge:
    """The new table of a card, and how it differs from the shipped one."""

    table: Table
    new: int
    changed: int
    suspects: tuple[str, ...] = ()


def merge(given: Sequence[Table], shipped: Table | None = None) -> Merge:
    """Merges tables of one card. Shipped rows keep their places; new ones follow, sorted."""
    before = {row.key: row for row in rows_of(shipped)}
    rivals: dict[str, list[Row]] = {key: [row] for key, row in before.items()}
    for row in (row for table in given for row in rows_of(table)):
        rivals.setdefault(row.key, []).append(row)
    kept = {key: min(rows, key=lambda row: rank(row, shipped)) for key, rows in rivals.items()}
    new = sorted(key for key in kept.keys() - before.keys() if kept[key].time < math.inf)
    rows = [kept[key] for key in (*before, *new)]
    sources = [table for table in (shipped, *given) if table is not None and any(row.table is table for row in rows)]
    suspects = [f"{name} for {row.key}" for table in given for row in rows_of(table) for name in row.faster]
    return Merge(
        Table(joined(sources), tuple(row.measured for row in rows)),
        new=len(new),
        changed=sum(kept[key] is not row for key, row in before.items()),
        suspects=tuple(sorted(set(suspects))),
    )


def rows_of(table: Table | None) -> Iterator[Row]:
    yield from (Row(measured, table) for measured in table.choices) if table is not None else ()


def rank(row: Row, shipped: Table | None) -> tuple[float, bool, str]:
    """The least is kept. The last part decides between equal times in a way that no order of files changes."""
    return row.time, row.table is not shipped, repr(row.measured)


def joined(tables: Sequence[Table]) -> dict[str, str]:
    """Where the rows of these tables were measured: all values of each fact."""
    values = {name: {part for table in tables for part in table.environment[name].split(BETWEEN)} for name in FACTS}
    return {name: BETWEEN.join(sorted(parts)) for name, parts in values.items()}


def merge_files(files: Sequence[Path], folder: Path) -> Iterator[str]:
    """Merges files into the tables of a folder; yields what to tell. Nothing is written if any file is bad.

    Raises OptionsError for a bad file or a folder that does not exist, OutputError if a table cannot be written.
    """
    if not folder.is_dir():
        raise OptionsError(f"--into: there is no folder {quoted(folder)}; make it first, or name one that is there.")
    given = [read_table(file) for file in files]
    merges: dict[Path, Merge] = {}
    for chip in sorted({table.environment["chip"] for table in given}):
        path = shipped_path(folder, {"chip": chip})
        of_card = [table for table in given if table.environment["chip"] == chip]
        merges[path] = merge(of_card, read_table(path) if path.exists() else None)
    for path, result in merges.items():
        write(path, table_text(result.table).encode())
        rows = len(result.table.choices)
        yield f"{path.name}: {rows} rows, of which {result.new} are new and {result.changed} are now faster"
        yield from (f"  was fastest and gave a wrong result: {suspect}" for suspect in result.suspects)


def write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        cause = error.strerror or error
        raise OutputError(
            f"The table {quoted(path)} cannot be written ({cause}): name another folder with --into."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a table of --stable-fast-export")
    parser.add_argument("--into", type=Path, default=SHIPPED, metavar="FOLDER", help="default: the shipped tables")
    arguments = parser.parse_args(argv)
    try:
        for line in merge_files(arguments.files, arguments.into):
            print(line)
    except LightDiffusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
