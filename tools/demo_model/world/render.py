"""Draws scenes as pictures: distance fields with antialiased edges, a whole batch at once, at any size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tools.demo_model.world.canvas import Canvas
from tools.demo_model.world.landscapes import paint_landscapes
from tools.demo_model.world.scenes import PALETTE, POSITION_XY, RADII, Fact, Kind, Scenes, constant

COUNT_RADIUS = (0.0, 0.40, 0.34, 0.25)  # radius for one (pairs: as for two), two and three objects
COUNT_X = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-0.48, 0.48, 0.0), (-0.62, 0.0, 0.62))


def render(scenes: Scenes, size: tuple[int, int], *, crop: int = 0) -> Tensor:
    """Draws pictures [N, 3, h, w] in -1..1 of `size` = (height, width), or random square windows of `crop` pixels."""
    device, count = scenes.facts.device, len(scenes)
    window = None
    if crop:
        room = constant((size[0] - crop + 1, size[1] - crop + 1), device)
        window = (torch.rand(count, 2, device=device) * room).floor()
    split = scenes.objects
    pictures = []
    for rows, paint in ((slice(0, split), _paint_objects), (slice(split, count), paint_landscapes)):
        facts, jitter = scenes.facts[rows], scenes.jitter[rows]
        if len(facts):
            canvas = Canvas(len(facts), size, device, None if window is None else window[rows], crop)
            paint(canvas, facts, jitter)
            pictures.append(canvas.image)
    return torch.cat(pictures).clamp(-1, 1)


def palette(device: torch.device) -> Tensor:
    return constant(tuple(PALETTE.values()), device) / 127.5 - 1


def shape_distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Returns the signed distance to unit shapes around the origin; `shape` [B] indexes SHAPES, x and y [B, h, w]."""
    shape = shape[:, None, None]
    out = torch.hypot(x, y) - 1
    for index, field in enumerate((_square, _triangle, _star, _heart), start=1):
        out = torch.where(shape == index, field(x, y), out)
    return out


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.88


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(y - 0.85, (1.7 * x.abs() - 0.98 * (y + 0.85)) / math.hypot(1.7, 0.98))


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance to a five-pointed star: folds the plane into one wedge, and measures to its edge."""
    x, y = x.abs(), 0.1 - y
    cos, sin = math.cos(math.pi / 5), math.sin(math.pi / 5)
    for sign in (1, -1):
        fold = 2 * (sign * cos * x - sin * y).clamp(min=0)
        x, y = x - fold * sign * cos, y + fold * sin
    x, y = x.abs(), y - 1.12
    edge_x, edge_y = 0.48 * sin, 0.48 * cos - 1
    along = ((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2)).clamp(0, 1.12)
    return torch.hypot(x - edge_x * along, y - edge_y * along) * torch.sign(y * edge_x - x * edge_y)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs() / 1.75, (0.98 - y) / 1.75
    lobe = torch.hypot(x - 0.25, y - 0.75) - 0.35355
    middle = 0.5 * (x + y).clamp(min=0)
    tip = torch.minimum(x**2 + (y - 1) ** 2, (x - middle) ** 2 + (y - middle) ** 2).sqrt() * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, tip) * 1.75


def _lookup(table: tuple[object, ...], index: Tensor) -> Tensor:
    return constant(table, index.device)[index]


def _paint_objects(canvas: Canvas, facts: Tensor, jitter: Tensor) -> None:
    colours = palette(facts.device)
    background = facts[:, Fact.BACKGROUND]
    light = 0.84 + 0.1 * jitter[:, 0]
    # no background given: a light page, or mid grey behind pale objects, which would vanish on a light page
    white = list(PALETTE).index("white")
    pale = (facts[:, Fact.COLOUR] == white) | ((facts[:, Fact.KIND] == Kind.PAIR) & (facts[:, Fact.COLOUR2] == white))
    light = torch.where(pale, light - 0.9, light)
    shade = (jitter[:, 1:4] - 0.5) * 0.06
    said = colours[(background - 1).clamp(min=0)] + shade
    canvas.blend(torch.ones_like(canvas.x), torch.where(background[:, None] > 0, said, light[:, None]))
    pair = facts[:, Fact.KIND] == Kind.PAIR
    count = torch.where(pair, 2, facts[:, Fact.COUNT])
    for index in range(3):
        second = pair & (index == 1)
        colour = colours[torch.where(second, facts[:, Fact.COLOUR2], facts[:, Fact.COLOUR])]
        shape = torch.where(second, facts[:, Fact.SHAPE2], facts[:, Fact.SHAPE])
        x, y, radius = _placement(canvas, facts, jitter[:, 8 + 3 * index : 11 + 3 * index], count, index)
        distance = shape_distance(shape, (canvas.x - x) / radius, (canvas.y - y) / radius) * radius
        canvas.paint(distance, colour + (jitter[:, 4:7] - 0.5) * 0.06, (index < count)[:, None, None].float())


def _placement(
    canvas: Canvas, facts: Tensor, jitter: Tensor, count: Tensor, index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns centre and radius [B, 1, 1] of object `index`; placed objects stay inside the picture."""
    many = count > 1
    low, high = _lookup(RADII, facts[:, Fact.SIZE]).unbind(1)
    radius = low + (high - low) * jitter[:, 2]
    radius = torch.where(many, _lookup(COUNT_RADIUS, count) * (0.92 + 0.12 * jitter[:, 2]), radius)
    where = _lookup(POSITION_XY, facts[:, Fact.POSITION])
    row = _lookup(COUNT_X, count)[:, index]
    wobble = torch.where(many, 0.06, 0.08)
    x = torch.where(many, row, where[:, 0]) + (jitter[:, 0] - 0.5) * wobble
    y = where[:, 1] + (jitter[:, 1] - 0.5) * wobble
    x, y = x * canvas.half_width, y * canvas.half_height
    room_x = (canvas.half_width - 1.06 * radius).clamp(min=0)
    room_y = (canvas.half_height - 1.06 * radius).clamp(min=0)
    x, y = torch.clamp(x, -room_x, room_x), torch.clamp(y, -room_y, room_y)
    return x[:, None, None], y[:, None, None], radius[:, None, None]
