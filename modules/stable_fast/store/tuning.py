"""Chooses the fastest implementation of each fused op and shape, within a time budget, and saves it on disk.

Without tuning, choices come from tables (tables.py), or else from each op's default. With a budget, the
implementations for a new shape are timed on the arguments at hand. The winner has to give the same result as the
default. A second process neither times anything, since results are kept, nor compiles anything, thanks to Triton's
cache.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.device import raise_if_broken
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, ImplementationChoices, Implementations
from modules.stable_fast.kernels.near_shapes import Times
from modules.stable_fast.kernels.refusals import REFUSALS
from modules.stable_fast.kernels.timing import GpuTimer
from modules.stable_fast.store.cache import cache_folder, told_once
from modules.stable_fast.store.tables import Measured, choices_path, environment, write_choices
from modules.stable_fast.store.tuning_order import FIRST, in_order

log = logging.getLogger(__name__)

AGREEMENT = 0.02  # largest difference / largest value: several roundings in fp16 or bf16, far from a wrong result
# Either neighbour of a value in eight bits may be written. Those of e4m3 are an eighth of the largest value apart at
# most, and those of int8 one.
EIGHT_BIT_AGREEMENT = {torch.float8_e4m3fn: 0.13, torch.int8: AGREEMENT}
INTEGER_STEP = 1.0

BY_LIBRARIES = ("cudnn", "cublas", "flash", "efficient", "xformers", "two_products")  # nothing to compile

Run = Callable[[], Any]
# Milliseconds of a call. The tensor is read first, because an op's activations are usually in cache.
Timer = Callable[[Run, Any], float]


@dataclass
class _Contest:
    """The implementations of a call, in order, and what is known of them."""

    order: list[str]
    times: dict[str, float] = field(default_factory=dict)  # milliseconds
    winner: str | None = None
    result: Measured | None = None  # if it is to be kept
    lacked_memory: bool = False

    def __post_init__(self) -> None:
        self.untried = list(self.order)


class BudgetTuner:
    """Times implementations until the budget is spent. After that, it chooses nothing that it has not timed.

    `most` says how many of each call are timed at most, in the order of `in_order`; None: all. A call that is made
    again after `most` grew goes on where it ended.
    """

    def __init__(
        self,
        budget_seconds: float,
        timer: Timer,
        clock: Callable[[], float] = time.perf_counter,
        measured: Mapping[str, Mapping[ChoiceKey, Times]] | None = None,
    ) -> None:
        self.most: int | None = None
        self.spent_seconds = 0.0
        self._budget, self._timer, self._clock = budget_seconds, timer, clock
        self._known = measured or {}
        self._contests: dict[tuple[str, ChoiceKey], _Contest] = {}

    @property
    def measured(self) -> list[Measured]:
        return [contest.result for contest in self._contests.values() if contest.result is not None]

    @property
    def untried(self) -> int:
        """How many implementations there was no time for."""
        return sum(len(contest.untried) for contest in self._contests.values())

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str | None:
        if len(implementations) == 1:
            return default
        if (op, key) not in self._contests:
            self._contests[op, key] = _Contest(in_order(op, key, implementations, default, self._known))
        contest = self._contests[op, key]
        wanted = contest.order[: self.most]
        if self.spent_seconds >= self._budget or not set(wanted) & set(contest.untried):
            return contest.winner
        started = self._clock()
        for name in wanted:
            if name not in contest.untried:
                continue
            if contest.times and self.spent_seconds + self._clock() - started >= self._budget:
                break
            contest.untried.remove(name)
            try:
                milliseconds = self._time(implementations[name], args)
            except torch.OutOfMemoryError:
                contest.lacked_memory = True  # this implementation may be the fastest with more free memory
                continue
            if milliseconds is not None:
                contest.times[name] = milliseconds
        self.spent_seconds += self._clock() - started
        contest.winner, is_checked = _fastest_right(op, key, contest.times, implementations, default, args)
        is_kept = is_checked and not contest.lacked_memory
        contest.result = Measured(op, key, contest.winner, dict(contest.times)) if is_kept else None
        return contest.winner

    def _time(self, implementation: Callable[..., Any], args: tuple[Any, ...]) -> float | None:
        """Milliseconds, or None if the implementation does not support this shape on this machine."""
        try:
            return self._timer(lambda: implementation(*args), args[0])
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as error:
            raise_if_broken()  # otherwise, the implementation cannot be captured
            log.debug("implementation passed over: %s", error)
            return None


def _fastest_right(
    op: str,
    key: ChoiceKey,
    times: Mapping[str, float],
    implementations: Implementations,
    default: str,
    args: tuple[Any, ...],
) -> tuple[str, bool]:
    """The fastest that agrees with the default, and whether results told that: compilers and libraries have bugs at
    untested shapes."""
    ranked = sorted(times, key=lambda name: times[name])
    if default not in times:  # nothing to compare with
        return (ranked[0] if ranked else default), True
    if ranked[0] == default:
        return default, True
    expected = implementations[default](*args)
    if not tells_something(expected):
        log.warning("%s %s gives no finite result here, so nothing is chosen for it", op, key)
        return default, False
    for name in ranked[: ranked.index(default)]:
        if agree(implementations[name](*args), expected):
            return name, True
        log.warning("%s gives a wrong result for %s %s here and is passed over", name, op, key)
    return default, True


def tells_something(expected: Any) -> bool:
    """Whether each part of a result has a finite value, with which another result can be compared."""
    if isinstance(expected, tuple):
        return all(map(tells_something, expected))
    return bool(_comparable(expected).isfinite().any())


def agree(result: Any, expected: Any) -> bool:
    """Whether two implementations differ only by rounding."""
    if isinstance(expected, tuple):
        return all(agree(*pair) for pair in zip(result, expected, strict=True))
    tolerance = EIGHT_BIT_AGREEMENT.get(expected.dtype, AGREEMENT)
    return within(result, expected, tolerance, INTEGER_STEP if expected.dtype is torch.int8 else 0.0)


def within(result: Tensor, expected: Tensor, tolerance: float, step: float = 0.0) -> bool:
    """Whether the largest difference is at most this share of the largest expected value, or this step.

    Places where the expected value is not finite say nothing. At all others, the result has to be finite too.
    """
    result, expected = _comparable(result), _comparable(expected)
    finite = expected.isfinite()
    largest = expected.abs().where(finite, 0).amax().float()
    difference = (result - expected).abs().where(finite, 0).amax().float()  # NaN if the result has one there
    return bool(difference <= torch.clamp(tolerance * largest, min=step))


def _comparable(x: Tensor) -> Tensor:
    """8-bit numbers as fp32, since PyTorch cannot subtract some of them."""
    return x.float() if x.dtype.itemsize == 1 else x


def launch_all(op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]) -> str:
    """Stands in for a tuner while kernels are compiled ahead: launches all our own kernels, and chooses the default."""
    launch_own(implementations, args)
    return default


def launch_in_order(run: Callable[[], object], choices: ImplementationChoices = CHOICES) -> None:
    """Runs it while kernels are compiled ahead: launches all our own, but the first of each call before any others."""
    for part in (slice(FIRST), slice(FIRST, None)):
        with choices.asking(partial(_launch_part, part, choices.measured)):
            run()


def _launch_part(
    part: slice,
    measured: Mapping[str, Mapping[ChoiceKey, Times]],
    op: str,
    key: ChoiceKey,
    implementations: Implementations,
    default: str,
    args: tuple[Any, ...],
) -> str:
    names = in_order(op, key, implementations, default, measured)[part]
    launch_own({name: implementations[name] for name in names}, args)
    return default


def launch_own(implementations: Implementations, args: tuple[Any, ...]) -> None:
    """Launches our own kernels among these. Libraries have nothing to compile and would run."""
    for name, implementation in implementations.items():
        if not name.startswith(BY_LIBRARIES):
            with suppress(*REFUSALS):
                implementation(*args)


@contextmanager
def tuning(
    device: torch.device,
    budget_seconds: float,
    *,
    folder: Path | None = None,
    timer: Timer | None = None,
    choices: ImplementationChoices = CHOICES,
) -> Iterator[BudgetTuner]:
    """On a GPU, tunes shapes without a choice that run inside, while the budget lasts. Results are saved."""
    tuner = BudgetTuner(budget_seconds, timer or GpuTimer(), measured=choices.measured)
    choices.tuner = tuner
    try:
        yield tuner
    finally:
        choices.tuner = None
        torch.cuda.empty_cache()  # the private pools of the timing graphs
        _keep(tuner.measured, device, folder or cache_folder())


def _keep(measured: list[Measured], device: torch.device, folder: Path) -> None:
    if not measured:
        return
    described = environment(device)
    with told_once():
        write_choices(choices_path(folder, described), described, measured)
