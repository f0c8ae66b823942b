"""Predicts the fastest implementation for a shape that was not measured here, from the nearest ones that were.

The same shape may have been measured on another card of the class.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

Key = tuple[Any, ...]  # of a choice: sizes, options and dtype
Times = Mapping[str, float]  # milliseconds by implementation

# The numbers are those that predict best if each row of the H200's table is left out in turn (see the test).
NEIGHBOURS = 4
FARTHEST = 3.0  # doublings; beyond that, the default is as good a guess
CLOSE = 0.5  # doublings that hardly matter


def predict(op: str, key: Key, names: Collection[str], measured: Mapping[Key, Times]) -> str | None:
    """Returns the name that is expected to take the least time; None if no shape nearby says anything."""
    expected = expected_slowdowns(op, key, names, measured)
    return min(expected, key=expected.__getitem__, default=None)


def expected_slowdowns(op: str, key: Key, names: Collection[str], measured: Mapping[Key, Times]) -> dict[str, float]:
    """Returns the logarithm of each name's expected time as a multiple of the best one's at the shapes nearby.

    A name is expected to take the geometric mean of its multiples there, weighted by nearness. It must have been
    measured at the greater part of them.
    """
    weights = weights_nearby(op, key, measured)
    expected: dict[str, float] = {}
    for name in names:
        told = {known: weight for known, weight in weights.items() if name in measured[known]}
        if told and 2 * sum(told.values()) >= sum(weights.values()):
            slower = (weight * math.log(slowdown(name, measured[known])) for known, weight in told.items())
            expected[name] = sum(slower) / sum(told.values())
    return expected


def expected_best(op: str, key: Key, measured: Mapping[Key, Times]) -> float:
    """Returns the milliseconds that the best implementation should take, in proportion to the sizes; 0 if unknown."""
    weights = weights_nearby(op, key, measured)
    if not weights:
        return 0.0
    rates = (weight * math.log(min(measured[known].values()) / work(op, known)) for known, weight in weights.items())
    return work(op, key) * math.exp(sum(rates) / sum(weights.values()))


def work(op: str, key: Key) -> int:
    """The product of all sizes, to which the time of similar calls is nearly proportional."""
    return math.prod(max(size, 1) for size in amounts(op, key) if is_size(size))


def weights_nearby(op: str, key: Key, measured: Mapping[Key, Times]) -> dict[Key, float]:
    """Returns how much each of the nearest measured shapes counts: of the same one, all."""
    if is_timed(measured.get(key, {})):
        return {key: 1.0}
    here = amounts(op, key)
    far = {known: distance(here, amounts(op, known)) for known, times in measured.items() if is_timed(times)}
    nearest = sorted((known for known in far if far[known] <= FARTHEST), key=far.__getitem__)[:NEIGHBOURS]
    return {known: 1 / (far[known] ** 2 + CLOSE**2) for known in nearest}


def is_timed(times: Times) -> bool:
    return bool(times) and min(times.values()) > 0


def slowdown(name: str, times: Times) -> float:
    """The time of an implementation as a multiple of the best one's."""
    return times[name] / min(times.values())


def amounts(op: str, key: Key) -> Key:
    """Joins the sizes of a key that make one dimension of the work: for a convolution, all places where it is made."""
    if op in ("conv2d_epilogue", "conv2d_eight"):
        batch, channels, height, width, out, kernel, stride, padding, *options = key
        return (batch * height * width, channels, out, str(kernel), str(stride), str(padding), *options)
    if op in ("upsample_conv2d", "upsample_conv2d_eight"):
        batch, channels, height, width, *others = key
        return (batch * height * width, channels, *others)
    if op == "attention_packed":
        batch, length, heads, size, *others = key
        return (batch * heads, length, size**2, *others)  # a head of another size needs another kernel
    return key


def distance(one: Key, other: Key) -> float:
    """How far sizes are apart, in doublings (Euclidean); infinite if anything that is not a size differs."""
    if len(one) != len(other):
        return math.inf
    squares = 0.0
    for mine, theirs in zip(one, other, strict=True):
        if is_size(mine) and is_size(theirs):
            squares += math.log2(max(mine, 1) / max(theirs, 1)) ** 2
        elif mine != theirs or is_size(mine) != is_size(theirs):
            return math.inf
    return math.sqrt(squares)


def is_size(part: Any) -> bool:
    return isinstance(part, int) and not isinstance(part, bool)
