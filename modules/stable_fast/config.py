"""What can be switched; nothing here changes the picture beyond rounding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from modules.core.errors import OptionsError

DISABLE_VARIABLE = "LIGHTDIFFUSION_STABLE_FAST"  # "off" (or another level) is the most that is allowed
OFF_WORDS = ("0", "false", "no")


class Level(str, Enum):
    """A level as two facts. Users and reports see its word, to which it is equal.

    `fused`: staged and fused programs run in place of the network. `captured`: steps are replayed as CUDA graphs.
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
        """What is left of it without CUDA graphs."""
        return Level.FUSED if self.fused else Level.OFF


LEVELS = tuple(Level)  # from the lowest to the highest


@dataclass(frozen=True, kw_only=True)
class StableFastConfig:
    """`level`: off, graph (eager kernels, captured), fused (staged and fused), full (both).

    At most `max_shapes` sets of sizes are kept, and the least recently used goes first; captured graphs may hold
    `graph_memory_mib`. `tuning_seconds` may be spent on timing implementations of fused operations.
    `timed_against_eager` runs two eager steps after warm-up, to tell when Stable-Fast pays (CUDA only).

    Raises ValueError for an unknown level, and for fewer than one shape.
    """

    level: str = Level.FULL
    max_shapes: int = 8
    graph_memory_mib: int = 4096
    tuning_seconds: float = 0.0
    timed_against_eager: bool = True

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r} is not one of {', '.join(LEVELS)}")
        if self.max_shapes < 1:
            raise ValueError("max_shapes must be at least 1")


def level_in_force(asked: str) -> tuple[Level, str]:
    """The level that the environment variable allows, and the reason where it is lower than the one asked for.

    Raises OptionsError when the variable names no level: someone wanted something switched off.
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
