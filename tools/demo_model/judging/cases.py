"""Lists the judged prompts: scenes with combinations absent from training, their captions, and what they must show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tools.demo_model.judging.measure import Pixels, read_picture, read_sunset
from tools.demo_model.world.captions import Captions
from tools.demo_model.world.scenes import (
    COLOURS,
    JITTERS,
    POSITION_XY,
    SHAPES,
    SUNS,
    TIMES,
    Draw,
    Fact,
    Kind,
    Scenes,
    is_held_out,
)  # fmt: skip

Verdict = dict[str, bool]
NEAR = 0.3


@dataclass(frozen=True)
class Cases:
    """Scenes, each with one caption and one seed."""

    scenes: Scenes
    prompts: list[str]
    seeds: list[int]


def held_out_triples(draw: Draw) -> Tensor:
    """Draws random rows (shape, colour, background) from the combinations left out of training."""
    shape, colour, background = torch.meshgrid(
        torch.arange(len(SHAPES)), torch.arange(len(COLOURS)), torch.arange(1, len(COLOURS) + 1), indexing="ij"
    )
    facts = torch.zeros(shape.numel(), len(Fact), dtype=torch.long)
    for column, values in ((Fact.SHAPE, shape), (Fact.COLOUR, colour), (Fact.BACKGROUND, background)):
        facts[:, column] = values.flatten()
    allowed = facts[is_held_out(facts) & (facts[:, Fact.BACKGROUND] != facts[:, Fact.COLOUR] + 1)]
    return allowed[draw.integer(len(allowed))]


def build_cases(captions: Captions, seed: int = 987_654, divide: float = 1) -> dict[str, Cases]:
    """Returns all groups, each reduced by the factor `divide`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"object": 160, "position": 108, "count": 48, "pair": 24, "sunset": 48}
    groups: dict[str, Cases] = {}
    for name, full in sizes.items():
        count = max(int(full // divide), 4)
        draw = Draw(count, torch.device("cpu"), generator)
        facts = _sunset_facts(draw) if name == "sunset" else _object_facts(draw, name)
        objects = 0 if name == "sunset" else count
        scenes = Scenes(facts, torch.rand(count, JITTERS, generator=generator), objects)
        first = seed + 1000 * len(groups)
        groups[name] = Cases(scenes, captions.texts(scenes, generator), list(range(first, first + count)))
    return groups


def _object_facts(draw: Draw, group: str) -> Tensor:
    facts = held_out_triples(draw)
    facts[:, Fact.COUNT] = 1
    index = torch.arange(draw.count)
    if group == "object":
        facts[:, Fact.SIZE] = draw.weighted(0.6, 0.2, 0.2)
    elif group == "position":
        facts[:, Fact.POSITION] = 1 + index % (len(POSITION_XY) - 1)
        facts[:, Fact.SIZE] = draw.weighted(0.7, 0.3)
    elif group == "count":
        facts[:, Fact.COUNT] = 2 + index % 2
    else:
        facts[:, Fact.KIND] = Kind.PAIR
        facts[:, Fact.SHAPE2] = draw.integer(len(SHAPES))
        facts[:, Fact.COLOUR2] = draw.other(facts[:, Fact.COLOUR], len(COLOURS))
        clash = facts[:, Fact.COLOUR2] + 1 == facts[:, Fact.BACKGROUND]
        facts[clash, Fact.BACKGROUND] = 0
    return facts


def _sunset_facts(draw: Draw) -> Tensor:
    facts = torch.zeros(draw.count, len(Fact), dtype=torch.long)
    facts[:, Fact.KIND] = Kind.LANDSCAPE
    facts[:, Fact.TIME] = TIMES.index("sunset")
    facts[:, Fact.SUN] = torch.arange(draw.count) % len(SUNS)
    return facts


def judge(group: str, facts: Tensor, picture: Pixels) -> Verdict:
    """Judges a picture requested by `facts` (one row)."""
    if group == "sunset":
        return _judge_sunset(facts, picture)
    reading = read_picture(picture)
    asked = {name: int(facts[column]) for name, column in Fact.__members__.items()}
    colour, shape = COLOURS[asked["COLOUR"]], SHAPES[asked["SHAPE"]]
    found = reading.objects
    if group == "pair":
        wanted = [(colour, shape), (COLOURS[asked["COLOUR2"]], SHAPES[asked["SHAPE2"]])]
        seen = [(item.colour, item.shape) for item in sorted(found, key=lambda item: item.x)]
        return {"pair: two objects, colours and shapes in order (no floor)": seen == wanted}
    verdict = {
        "object colour": bool(found) and all(item.colour == colour for item in found),
        "shape": bool(found) and all(item.shape == shape for item in found),
    }
    if asked["BACKGROUND"]:
        verdict["background colour"] = reading.background == COLOURS[asked["BACKGROUND"] - 1]
    if group == "count":
        return {"count": len(found) == asked["COUNT"], **verdict}
    verdict["exactly one object"] = len(found) == 1
    if asked["POSITION"]:
        x, y = POSITION_XY[asked["POSITION"]]
        verdict["position"] = bool(found) and abs(found[0].x - x) < NEAR and abs(found[0].y - y) < NEAR
    return verdict


def _judge_sunset(facts: Tensor, picture: Pixels) -> Verdict:
    reading = read_sunset(picture)
    verdict = {"sunset: warm sky": reading.warm_sky, "sunset: sky warmer than sea": reading.sky_warmer_than_sea}
    if facts[Fact.SUN]:
        verdict["sun on the asked side"] = reading.side == SUNS[int(facts[Fact.SUN])]
    return verdict
