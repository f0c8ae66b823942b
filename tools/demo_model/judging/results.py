"""Collects the outcomes of judgements, and lists them as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One line of the table: the share of `number` pictures that passed, and the mean measurement."""

    share: float
    number: int
    mean: float


def collect(outcomes: list[tuple[bool, float]]) -> Result:
    holds, values = zip(*outcomes, strict=True)
    return Result(sum(holds) / len(holds), len(holds), statistics.fmean(values))


def table(results: Mapping[str, Result], floors: Mapping[str, float]) -> str:
    lines = ["| | floor | n | holds | mean |", "|---|---|---|---|---|"]
    for name, result in results.items():
        floor = floors.get(name)
        mark = " (below)" if floor is not None and result.share < floor else ""
        lines.append(f"| {name} | {floor or ''} | {result.number} | {result.share:.3f}{mark} | {result.mean:.3f} |")
    return "\n".join(lines)
