"""Tells how early tuning tries the best implementation of a call, by the shipped tables; no GPU is needed.

    python -m benchmarks.cpu.bench_order

Each row is left out of its table in turn, and the order of its implementations is told by the others, some of which are
of the same workload. `best_among_first` is the share of rows whose best is among the first four, and `time_over_best`
what these four give, as a multiple of the best times, summed over rows. The same is told for the order in which an op
lists them, which starts with the default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.common import write_result
from modules.stable_fast.kernels.choices import ChoiceKey
from modules.stable_fast.store.tables import SHIPPED, read_choices
from modules.stable_fast.store.tuning_order import FIRST, in_order

Times = Mapping[str, float]
Rows = Mapping[tuple[str, ChoiceKey], Times]


def rows_of(path: Path) -> Rows:
    """The rows with more implementations than are tried first."""
    rows = {(row.op, row.key): row.of_right_results() for row in read_choices(path)}
    return {call: times for call, times in rows.items() if len(times) > FIRST and min(times.values()) > 0}


def orders(rows: Rows, *, learns: bool) -> Iterable[tuple[list[str], Times]]:
    """The order of each row's implementations, with its times. Rows of tables begin with the default."""
    for (op, key), times in rows.items():
        others = {other: rest for (name, other), rest in rows.items() if name == op and other != key}
        yield in_order(op, key, times, next(iter(times)), {op: others} if learns else {}), times


def summed(ordered: Iterable[tuple[list[str], Times]]) -> dict[str, float]:
    rows = hits = 0
    best = tried = 0.0
    for order, times in ordered:
        first = min(times[name] for name in order[:FIRST])
        if math.isinf(first):
            continue
        rows, hits = rows + 1, hits + (first == min(times.values()))
        best, tried = best + min(times.values()), tried + first
    return {"left_out": rows, "best_among_first": hits / rows, "time_over_best": tried / best}


def main() -> None:
    rows = [
        {"label": f"{path.stem}, {label}", "first": FIRST, **summed(orders(rows_of(path), learns=learns))}
        for path in sorted(SHIPPED.glob("*.json"))
        for label, learns in (("by near shapes", True), ("as listed", False))
    ]
    write_result("order-of-candidates", rows)


if __name__ == "__main__":
    main()
