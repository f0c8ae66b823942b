"""Options of Stable-Fast. None of them but `precision` changes the picture beyond rounding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from modules.core.errors import OptionsError
from modules.stable_fast.precision import PRECISIONS
from modules.stable_fast.store.tables import Table

DISABLE_VARIABLE = "LIGHTDIFFUSION_STABLE_FAST"  # the highest level allowed, such as "off"
OFF_WORDS = ("0", "false", "no")


class Level(str, Enum):
    """A level, made of two flags. It equals the word shown to users and in reports.

    `fused`: staged and fused programs run instead of the network. `captured`: steps are replayed as CUDA graphs.
    """

    OFF = "off"
    GRAPH = "graph"
    FUSED = "fused"
    FULL = "full"

    def __init__(self, word: str) -> None:
        self.fused = word in ("fused", "full")
        self.captured = word in ("graph", "full")
        self.is_off = word == "off"

    def __str__(self) -> str:
        return self.value

    @property
    def uncaptured(self) -> Level:
        """The same level without CUDA graphs."""
        return Level.FUSED if self.fused else Level.OFF


LEVELS = tuple(Level)  # lowest to highest


@dataclass(frozen=True, kw_only=True)
class StableFastConfig:
    """`level`: off, graph (eager kernels, captured), fused (staged and fused), full (both).

    At most `max_shapes` sets of sizes are kept; the least recently used is dropped first. Captured graphs may take up
    `graph_memory_mib`. Up to `tuning_seconds` are spent on timing implementations of fused operations. Choices of an
    imported `table` go before those that are shipped or were found here. With `timed_against_eager`, two eager steps
    run after warm-up, to find out when Stable-Fast pays off. Without CUDA, a few eager steps run beside the first fused
    ones instead, and sizes at which fused steps are slower then run eagerly. `precision` says how products are computed
    (see precision.py). With `emulated`, eight bits hold on any device: where no kernel serves it, by plain PyTorch.

    Raises ValueError for an unknown level or precision, or fewer than one shape.
    """

    level: str = Level.FULL
    max_shapes: int = 8
    graph_memory_mib: int = 4096
    tuning_seconds: float = 0.0
    table: Table | None = None
    timed_against_eager: bool = True
    precision: str = "off"
    emulated: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r} is not one of {', '.join(LEVELS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.max_shapes < 1:
            raise ValueError("max_shapes must be at least 1")

    @property
    def sums_in_half(self) -> bool:
        return self.precision == "fp16-accumulate"


def level_in_force(asked: str) -> tuple[Level, str]:
    """The level that the environment variable allows, and the reason if it is lower than the requested level.

    Raises OptionsError if the variable is not a valid level, since someone meant to switch something off.
    """
    level = Level(asked)
    word = os.environ.get(DISABLE_VARIABLE, "").strip().lower()
    if level.is_off or not word:
        return level, ""
    if word in OFF_WORDS:
        word = Level.OFF.value
    if word not in LEVELS:
        raise OptionsError(
            f"{DISABLE_VARIABLE}={word} is unknown: it is the most that Stable-Fast may do, off (0, no, false), graph, "
            "fused or full; set it to one of these or unset it, then start again."
        )
    if LEVELS.index(Level(word)) >= LEVELS.index(level):
        return level, ""
    return Level(word), f"{DISABLE_VARIABLE}={word}"
