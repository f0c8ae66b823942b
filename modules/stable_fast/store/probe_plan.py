"""Says which implementations to time at a new size, where that is likely to save the most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modules.stable_fast.kernels.accumulation import summed_in_single
from modules.stable_fast.kernels.candidates import Implementations, is_position
from modules.stable_fast.kernels.choices import ChoiceKey, ImplementationChoices
from modules.stable_fast.kernels.near_shapes import Key, Times, expected_best, expected_slowdowns

# With these, a step is within 1.04 of the best at each size that is left out of the H200's table (see the test).
# A model of the kernels' tiles guessed no better, since libraries do not tell which tile they take.
SHAPES = 24
EACH = 5  # with the default, against which results are checked
DEVIATION = 0.3  # of the logarithm of a time from what near shapes tell

Call = tuple[str, ChoiceKey]
Plan = Mapping[Call, tuple[str, ...]]


@dataclass
class Calls:
    """Calls of one op and key during a run, for which this card has no row."""

    names: tuple[str, ...]
    default: str
    likely: str
    count: int = 0


class Survey:
    """Stands in for a tuner: counts the calls whose choice is only a guess, and chooses nothing."""

    def __init__(self, choices: ImplementationChoices) -> None:
        self.calls: dict[Call, Calls] = {}
        self._choices = choices

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> None:
        if key in self._choices.probed.get(op, {}):
            return
        if (op, key) not in self.calls:
            likely = self._choices.predict(op, key, implementations) or default
            names = (name for name in implementations if (op, key, name) not in self._choices.refused)
            self.calls[op, key] = Calls(tuple(names), default, likely)
        self.calls[op, key].count += 1


def plan_probes(calls: Mapping[Call, Calls], *told_by: Mapping[str, Mapping[Key, Times]]) -> Plan:
    """Returns the names to time for the calls from which most is expected.

    How long a call takes is told by the first of these tables (by op) that has something near: first the one to predict
    from, then times on any card. What was not measured in it is tried first.
    """
    worth: dict[Call, float] = {}
    names: dict[Call, tuple[str, ...]] = {}
    for (op, key), found in calls.items():
        near = summed_in_single(key)
        times = next((by_op[op] for by_op in told_by if expected_best(op, near, by_op.get(op, {}))), {})
        expected = _with_unknown(expected_slowdowns(op, near, found.names, times), found.names)
        names[op, key], gain = _most_promising(found, expected)
        worth[op, key] = found.count * expected_best(op, near, times) * gain
    best = sorted((call for call in worth if worth[call] > 0), key=worth.__getitem__, reverse=True)
    return {call: names[call] for call in best[:SHAPES]}


def _with_unknown(expected: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Of what was never measured, as much is expected as of the best."""
    best = min(expected.values(), default=0.0)
    known = {name: expected.get(name, best) for name in names if not is_position(name)}
    return {name: slower for name, slower in known.items() if slower < math.inf}


def _most_promising(found: Calls, expected: Mapping[str, float]) -> tuple[tuple[str, ...], float]:
    """The names to time, and which share of the time they are expected to save."""
    ranked = sorted(expected, key=expected.__getitem__)
    names = tuple(dict.fromkeys((found.default, found.likely, *ranked)))[:EACH]
    now = expected.get(found.likely, 0.0)
    return names, sum(_gain(expected[name] - now) for name in names if name in expected and name != found.likely)


def _gain(slower: float) -> float:
    """What one that is expected to be this much slower saves on average, since both expectations may be wrong."""
    spread = DEVIATION * math.sqrt(2)
    z = slower / spread
    density, beyond = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), math.erfc(z / math.sqrt(2)) / 2
    return spread * (density - z * beyond)
