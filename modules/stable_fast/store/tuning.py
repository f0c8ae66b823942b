"""Chooses the fastest implementation of each fused op and shape, within a time budget, and saves it on disk.

Without tuning, choices come from a file shipped for the GPU, or else from each op's default. With a budget, the
implementations for a new shape are timed on the arguments at hand. The winner has to give the same result as the
default. Choices are saved per GPU, torch, Triton and cuDNN version, so a second process does not time anything. Nor
does it compile anything, thanks to Triton's cache.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.device import raise_if_broken
from modules.core.typed import Unreadable, number, parse_json_object, text, whole
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, ImplementationChoices, Implementations
from modules.stable_fast.kernels.launch import compile_ahead
from modules.stable_fast.kernels.refusals import REFUSALS
from modules.stable_fast.kernels.timing import time_on_gpu
from modules.stable_fast.kernels.triton_import import TRITON_VERSION
from modules.stable_fast.store.cache import cache_folder, read_file, replace_file, told_once

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "tuned"
FORMAT = 1
AGREEMENT = 0.02  # largest difference / largest value: several roundings in fp16 or bf16, far from a wrong result

Run = Callable[[], Any]
# Milliseconds of a call. The tensor is read first, because an op's activations are usually in cache.
Timer = Callable[[Run, Any], float]


@dataclass
class Measured:
    """Measurements for one op and key: the winner, and the milliseconds of each implementation that ran."""

    op: str
    key: ChoiceKey
    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)


class BudgetTuner:
    """Times implementations until the budget is spent. After that, each new key gets its default."""

    def __init__(self, budget_seconds: float, timer: Timer, clock: Callable[[], float] = time.perf_counter) -> None:
        self.measured: list[Measured] = []
        self.spent_seconds = 0.0
        self.skipped = 0
        self._budget = budget_seconds
        self._timer = timer
        self._clock = clock

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        if self.spent_seconds >= self._budget:
            self.skipped += 1
            return default
        if len(implementations) == 1:
            return default
        started, is_complete = self._clock(), True
        times: dict[str, float] = {}
        # The default comes first, so that it has been compared with all others timed before the budget ends.
        for name in sorted(implementations, key=lambda name: name != default):
            if times and self.spent_seconds + self._clock() - started >= self._budget:
                break
            try:
                milliseconds = self._time(implementations[name], args)
            except torch.OutOfMemoryError:
                is_complete = False  # this implementation may be the fastest with more free memory
                continue
            if milliseconds is not None:
                times[name] = milliseconds
        self.spent_seconds += self._clock() - started
        winner = _fastest_right(op, key, times, implementations, default, args)
        if is_complete:
            self.measured.append(Measured(op, key, winner, times))
        return winner

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
) -> str:
    """The fastest that agrees with the default: compilers and libraries have bugs at untested shapes."""
    ranked = sorted(times, key=lambda name: times[name])
    if default not in times:  # nothing to compare with
        return ranked[0] if ranked else default
    for name in ranked:
        if name == default or agree(implementations[name](*args), implementations[default](*args)):
            return name
        log.warning("%s gives a wrong result for %s %s here and is passed over", name, op, key)
    return default


def agree(result: Any, expected: Any) -> bool:
    """Whether two implementations differ only by rounding."""
    if isinstance(expected, tuple):
        return all(agree(*pair) for pair in zip(result, expected, strict=True))
    return within(result, expected, AGREEMENT)


def within(result: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether the largest difference is at most this share of the largest value; true if that value is not finite."""
    scale = expected.abs().amax().float()
    return not bool(scale.isfinite()) or bool((result - expected).abs().amax().float() <= tolerance * scale)


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")


def environment(device: torch.device) -> dict[str, str]:
    """Everything that can make one implementation faster than another."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "chip": f"sm{properties.major}{properties.minor}-{properties.multi_processor_count}",
        "gpu": properties.name,
        "torch": torch.__version__,
        "triton": str(TRITON_VERSION),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def shipped_path(folder: Path, described: Mapping[str, str]) -> Path:
    """Named after architecture and number of multiprocessors, so that cards with different memory share a table."""
    return folder / f"{described['chip']}.json"


def choices_path(folder: Path, described: Mapping[str, str]) -> Path:
    return folder / f"tuned-{slug('-'.join(described.values()))}.json"


def read_choices(path: Path) -> list[Measured]:
    """The choices in a file; empty if unreadable. A damaged file is reported, since measuring again takes time."""
    try:
        content = parse_json_object(read_file(path))
        if whole(content.get("format"), "format") != FORMAT:
            return []
        return [measured_in(row) for row in content["choices"]]
    except OSError:  # missing, or in an unreadable folder; a failure to write there is reported by the cache
        return []
    except (ValueError, KeyError, TypeError) as error:
        log.warning("tuning results in %s are unreadable and will be made again: %s", path, error)
        return []


def measured_in(row: Any) -> Measured:
    """One row of a file of choices. Raises ValueError or TypeError for anything else."""
    op, key, name, times = row
    if not isinstance(key, list) or any(isinstance(part, (list, dict, type(None))) for part in key):
        raise Unreadable("the key of a shape is not a list of sizes and names")
    milliseconds = {text(each, "name"): number(value, "time") for each, value in dict(times).items()}
    return Measured(text(op, "op"), tuple(key), text(name, "name"), milliseconds)


def write_choices(path: Path, described: Mapping[str, str], measured: list[Measured]) -> None:
    """Adds to the file's contents."""
    merged = {(m.op, m.key): m for m in (*read_choices(path), *measured)}
    rows = [[m.op, list(m.key), m.name, {k: round(v, 6) for k, v in m.milliseconds.items()}] for m in merged.values()]
    replace_file(path, json.dumps({"format": FORMAT, "environment": dict(described), "choices": rows}, indent=0))


def load_choices(device: torch.device, folder: Path | None = None, choices: ImplementationChoices = CHOICES) -> int:
    """Applies shipped and saved choices. Returns the number of choices."""
    described = environment(device)
    shipped = read_choices(shipped_path(SHIPPED, described))
    own = read_choices(choices_path(folder or cache_folder(), described))
    for measured in (*shipped, *own):
        choices.chosen[measured.op, measured.key] = measured.name
    return len(choices.chosen)


def make_ready(run: Run, device: torch.device, tuning_seconds: float, *, draws: bool = False) -> None:
    """Before a program first runs on a GPU: reads choices, compiles kernels and tunes ops without a choice.

    To do so it calls `run`, uncaptured. Any results of `run` are meaningless, and random numbers that it `draws` are
    drawn again later. Without a GPU, `run` is not called.
    """
    if device.type != "cuda":
        return
    load_choices(device)
    with torch.random.fork_rng(devices=[device], enabled=draws):
        compile_ahead(run, device)
        if tuning_seconds > 0:
            with tuning(device, tuning_seconds):
                run()


@contextmanager
def tuning(
    device: torch.device,
    budget_seconds: float,
    *,
    folder: Path | None = None,
    timer: Timer = time_on_gpu,
    choices: ImplementationChoices = CHOICES,
) -> Iterator[BudgetTuner]:
    """On a GPU, tunes shapes without a choice that run inside, while the budget lasts. Results are saved."""
    tuner = BudgetTuner(budget_seconds, timer)
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
