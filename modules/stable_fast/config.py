"""What can be switched; nothing here changes the picture beyond rounding."""

from __future__ import annotations

import os
from dataclasses import dataclass

from modules.core.errors import OptionsError

LEVELS = ("off", "graph", "fused", "full")
DISABLE_VARIABLE = "LIGHTDIFFUSION_STABLE_FAST"  # "off" (or another level) lowers what was asked for
OFF_WORDS = ("0", "false", "no")


@dataclass(frozen=True, kw_only=True)
class StableFastConfig:
    """`level`: off, graph (eager kernels, captured), fused (staged and fused), full (both).

    `max_shapes` programs at actual sizes are kept at once, the least recently used is dropped first; captured graphs
    may hold `graph_memory_mib`. `tuning_seconds` may be spent on timing implementations of fused operations.
    `timed_against_eager` runs two eager steps after warm-up, to tell when Stable-Fast pays (CUDA only).
    """

    level: str = "full"
    max_shapes: int = 8
    graph_memory_mib: int = 4096
    tuning_seconds: float = 0.0
    timed_against_eager: bool = True

    def __post_init__(self) -> None:
        check_level(self.level)
        if self.max_shapes < 1:
            raise ValueError("max_shapes must be at least 1")


def check_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"level {level!r} is not one of {', '.join(LEVELS)}")


def level_in_force(asked: str) -> tuple[str, str]:
    """The level after the environment variable had its say, and the reason if it lowers what was asked.

    Raises OptionsError when the variable names no level: someone wanted something switched off.
    """
    word = os.environ.get(DISABLE_VARIABLE, "").strip().lower()
    most = "off" if word in OFF_WORDS else word
    if asked == "off" or not most:
        return asked, ""
    if most not in LEVELS:
        raise OptionsError(
            f"{DISABLE_VARIABLE}={word} is unknown: it is the most that Stable-Fast may do, off (0, no, false), graph, "
            "fused or full; set it to one of these or unset it, then start again."
        )
    if LEVELS.index(most) >= LEVELS.index(asked):
        return asked, ""
    return most, f"{DISABLE_VARIABLE}={most}"
