"""The order in which tuning tries the implementations of a call: those first that near shapes praise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modules.stable_fast.kernels.accumulation import summed_in_single
from modules.stable_fast.kernels.candidates import is_position
from modules.stable_fast.kernels.choices import ChoiceKey
from modules.stable_fast.kernels.near_shapes import Times, expected_slowdowns

FIRST = 4  # of each call, before any call's others


def in_order(
    op: str, key: ChoiceKey, names: Iterable[str], default: str, measured: Mapping[str, Mapping[ChoiceKey, Times]]
) -> list[str]:
    """The default, with which all others are compared; then the fastest by the times at near shapes.

    What was not measured there is expected to be as fast as the best. Unknown positions in a library's list come last.
    """
    names = list(names)
    expected = expected_slowdowns(op, summed_in_single(key), names, measured.get(op, {}))
    best = min(expected.values(), default=0.0)

    def rank(name: str) -> tuple[bool, bool, float]:
        return name != default, name not in expected and is_position(name), expected.get(name, best)

    return sorted(names, key=rank)
