"""Describes scenes as numbers: facts that captions may mention, and jitter that they never mention."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import torch
from torch import Tensor

PALETTE = {
    "red": (220, 30, 35),
    "green": (35, 160, 60),
    "blue": (40, 75, 215),
    "yellow": (245, 215, 40),
    "orange": (245, 130, 25),
    "purple": (130, 45, 170),
    "pink": (245, 130, 180),
    "cyan": (50, 205, 220),
    "white": (245, 245, 245),
    "black": (18, 18, 20),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "heart")
SIZES = ("", "small", "large")
RADII = ((0.38, 0.44), (0.25, 0.29), (0.60, 0.68))
POSITIONS = ("", "left", "right", "top", "bottom", "center", "top left", "top right", "bottom left", "bottom right")
POSITION_XY = (
    (0.0, 0.0), (-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5), (0.0, 0.0),
    (-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5),
)  # fmt: skip
GROUNDS = ("ocean", "hills", "mountains", "desert")
TIMES = ("day", "sunset", "night")
SKIES = ("", "red", "pink", "purple")
SUNS = ("", "left", "center", "right")
LANDSCAPE_SHARE = 0.22
PAIR_SHARE = 0.07
JITTERS = 48


class Kind(IntEnum):
    OBJECT = 0
    PAIR = 1
    LANDSCAPE = 2


class Fact(IntEnum):
    """Columns of `Scenes.facts`; colours and other lists count from 0, BACKGROUND counts from 1 (0: unspecified)."""

    KIND = 0
    SHAPE = 1
    COLOUR = 2
    BACKGROUND = 3
    POSITION = 4
    SIZE = 5
    COUNT = 6
    SHAPE2 = 7
    COLOUR2 = 8
    GROUND = 9
    TIME = 10
    SKY = 11
    SUN = 12
    BOAT = 13
    CLOUDS = 14


@dataclass(frozen=True)
class Scenes:
    """`facts` [N, len(Fact)] int64, `jitter` [N, JITTERS] in 0..1; `objects` rows show objects, the rest landscapes."""

    facts: Tensor
    jitter: Tensor
    objects: int

    def __len__(self) -> int:
        return self.facts.shape[0]


@cache
def constant(table: tuple[object, ...], device: torch.device) -> Tensor:
    """Copies a table of numbers to the device once, since every copy makes the host wait for the device's queue."""
    return torch.tensor(table, dtype=torch.float32, device=device)


class Draw:
    """Draws random columns of a batch from one generator, without making the host wait."""

    def __init__(self, count: int, device: torch.device, generator: torch.Generator | None) -> None:
        self.count, self.device, self.generator = count, device, generator

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.count, *shape, device=self.device, generator=self.generator)

    def integer(self, bound: int) -> Tensor:
        return (self.uniform() * bound).long().clamp(max=bound - 1)

    def weighted(self, *weights: float) -> Tensor:
        """Draws index i with probability weights[i] / sum(weights)."""
        total, passed = sum(weights), 0.0
        u = self.uniform()
        index = torch.zeros(self.count, dtype=torch.long, device=self.device)
        for weight in weights[:-1]:
            passed += weight
            index += u > passed / total
        return index

    def other(self, taken: Tensor, bound: int) -> Tensor:
        """Draws an integer below `bound` that differs from `taken`."""
        return (taken + 1 + self.integer(bound - 1)) % bound


def is_held_out(facts: Tensor) -> Tensor:
    """Marks the combinations of shape, colour and background that are kept out of training for the evaluation."""
    background = facts[:, Fact.BACKGROUND]
    mixed = facts[:, Fact.SHAPE] + 2 * facts[:, Fact.COLOUR] + 3 * background
    return (background > 0) & (mixed % 12 == 0)


def sample_scenes(
    count: int, device: torch.device, generator: torch.Generator | None = None, landscape_share: float = LANDSCAPE_SHARE
) -> Scenes:
    """Draws training scenes: objects first, then landscapes."""
    objects = round(count * (1 - landscape_share))
    facts = torch.cat(
        [
            _object_facts(Draw(objects, device, generator)),
            _landscape_facts(Draw(count - objects, device, generator)),
        ]
    )
    return Scenes(facts, Draw(count, device, generator).uniform(JITTERS), objects)


def _object_facts(draw: Draw) -> Tensor:
    facts = torch.zeros(draw.count, len(Fact), dtype=torch.long, device=draw.device)
    pair = draw.uniform() < PAIR_SHARE
    facts[:, Fact.KIND] = pair.long()
    facts[:, Fact.SHAPE] = draw.integer(len(SHAPES))
    facts[:, Fact.COLOUR] = draw.integer(len(COLOURS))
    facts[:, Fact.SHAPE2] = draw.integer(len(SHAPES))
    facts[:, Fact.COLOUR2] = draw.other(facts[:, Fact.COLOUR], len(COLOURS))
    facts[:, Fact.COUNT] = torch.where(pair, 1, 1 + draw.weighted(0.82, 0.09, 0.09))
    single = ~pair & (facts[:, Fact.COUNT] == 1)
    placed = single & (draw.uniform() < 0.55)
    facts[:, Fact.POSITION] = torch.where(placed, 1 + draw.integer(len(POSITIONS) - 1), 0)
    # a large shape cannot stay in a corner: it would be moved back to the middle
    size = draw.weighted(0.6, 0.22, 0.18)
    facts[:, Fact.SIZE] = torch.where(single & ~(placed & (size == 2)), size, 0)
    background = 1 + draw.other(facts[:, Fact.COLOUR], len(COLOURS))
    clash = pair & (background == 1 + facts[:, Fact.COLOUR2])
    unsaid = (draw.uniform() < 0.25) | clash
    facts[:, Fact.BACKGROUND] = torch.where(unsaid, 0, background)
    facts[:, Fact.BACKGROUND] = torch.where(is_held_out(facts), 0, facts[:, Fact.BACKGROUND])
    return facts


def _landscape_facts(draw: Draw) -> Tensor:
    facts = torch.zeros(draw.count, len(Fact), dtype=torch.long, device=draw.device)
    facts[:, Fact.KIND] = Kind.LANDSCAPE
    facts[:, Fact.GROUND] = draw.weighted(0.42, 0.2, 0.24, 0.14)
    facts[:, Fact.TIME] = draw.weighted(0.3, 0.46, 0.24)
    sunset = facts[:, Fact.TIME] == TIMES.index("sunset")
    facts[:, Fact.SKY] = torch.where(sunset, draw.weighted(0.55, 0.15, 0.15, 0.15), 0)
    facts[:, Fact.SUN] = draw.weighted(0.46, 0.21, 0.12, 0.21)
    facts[:, Fact.BOAT] = ((facts[:, Fact.GROUND] == 0) & (draw.uniform() < 0.25)).long()
    facts[:, Fact.CLOUDS] = ((facts[:, Fact.TIME] < TIMES.index("night")) & (draw.uniform() < 0.25)).long()
    return facts
