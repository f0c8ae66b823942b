"""Paints the landscapes: sky, sun or moon, clouds, then ocean, hills, mountains or desert."""

from __future__ import annotations

import torch
from torch import Tensor

from tools.demo_model.world.canvas import Canvas
from tools.demo_model.world.scenes import Fact, constant

Stops = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
# top, middle, horizon: day, night, then the four sunsets in the order of SKIES
SKY_STOPS: tuple[Stops, ...] = (
    ((58, 128, 222), (120, 180, 240), (200, 228, 246)),
    ((8, 10, 34), (16, 22, 58), (40, 52, 104)),
    ((62, 52, 120), (226, 100, 88), (255, 190, 84)),
    ((92, 18, 40), (200, 42, 44), (250, 122, 60)),
    ((128, 84, 168), (236, 128, 170), (255, 196, 190)),
    ((38, 22, 88), (112, 54, 152), (232, 130, 190)),
)
SUN = ((255, 236, 120), (246, 244, 226), (255, 236, 150), (255, 206, 120), (255, 240, 214), (255, 220, 200))
CLOUD = ((250, 251, 253), (60, 66, 96), (255, 170, 120), (236, 108, 80), (255, 210, 214), (210, 130, 200))
DIM = (1.0, 0.26, 0.50, 0.44, 0.56, 0.44)
SEA = ((30, 104, 176), (10, 22, 58), (64, 56, 104), (70, 28, 48), (106, 78, 130), (50, 34, 96))
GROUND = ((0, 0, 0), (74, 158, 60), (104, 112, 138), (228, 188, 112))
HORIZON = (0.16, 0.24, 0.34, 0.24)
SUN_X = (0.0, -0.55, 0.0, 0.55)


def _colour(table: tuple[object, ...], index: Tensor) -> Tensor:
    return constant(table, index.device)[index] / 127.5 - 1


def _number(table: tuple[float, ...], index: Tensor) -> Tensor:
    return constant(table, index.device)[index]


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None]


class Light:
    """The effects of the time of day: kind of sky, position of the sun, darkness of the ground."""

    def __init__(self, canvas: Canvas, facts: Tensor, jitter: Tensor) -> None:
        time = facts[:, Fact.TIME]
        self.sunset, self.night = time == 1, time == 2
        self.sky = torch.where(self.sunset, 2 + facts[:, Fact.SKY], torch.where(self.night, 1, 0))
        horizon = (_number(HORIZON, facts[:, Fact.GROUND]) + (jitter[:, 0] - 0.5) * 0.06) * canvas.half_height
        self.horizon = _wide(horizon)
        x = (_number(SUN_X, facts[:, Fact.SUN]) + (jitter[:, 1] - 0.5) * 0.1) * canvas.half_width
        high = (-0.55 + (jitter[:, 2] - 0.5) * 0.1) * canvas.half_height
        y = torch.where(self.sunset, horizon - 0.20 + (jitter[:, 2] - 0.5) * 0.06, high)
        mountains = facts[:, Fact.GROUND] == 2
        y = torch.where(self.sunset & mountains, horizon - 0.62 * canvas.half_height, y)
        self.x, self.y = _wide(x), _wide(y)
        self.dim = _number(DIM, self.sky)[:, None]

    def shade(self, colour: Tensor) -> Tensor:
        """Returns a daylight colour [B, 3] in this light: darker, and tinted by the horizon at sunset."""
        tint = _colour(tuple(stops[2] for stops in SKY_STOPS), self.sky)
        dark = (colour + 1) * self.dim - 1
        return torch.where(self.sunset[:, None], dark * 0.82 + (tint * 0.5 - 0.5) * 0.18, dark)


def paint_landscapes(canvas: Canvas, facts: Tensor, jitter: Tensor) -> None:
    light = Light(canvas, facts, jitter)
    ground = facts[:, Fact.GROUND]
    _paint_sky(canvas, light)
    _paint_stars(canvas, light, jitter)
    _paint_sun(canvas, light)
    _paint_clouds(canvas, light, facts, jitter)
    _paint_ocean(canvas, light, (ground == 0).float())
    _paint_mountains(canvas, light, jitter, (ground == 2).float())
    _paint_hills(canvas, light, ground, jitter)
    _paint_boat(canvas, light, facts, jitter)


def _paint_sky(canvas: Canvas, light: Light) -> None:
    height = ((canvas.y + canvas.half_height) / (light.horizon + canvas.half_height)).clamp(0, 1)
    top, middle, bottom = (_colour(tuple(stops[i] for stops in SKY_STOPS), light.sky) for i in range(3))
    canvas.blend(torch.ones_like(canvas.x), top)
    canvas.blend((height * 1.8).clamp(0, 1), middle)
    canvas.blend(((height - 0.45) / 0.55).clamp(0, 1), bottom)


def _paint_stars(canvas: Canvas, light: Light, jitter: Tensor) -> None:
    white = torch.full((len(jitter), 3), 0.9, device=jitter.device)
    for index in range(10):
        x = (jitter[:, 10 + index] * 2 - 1) * canvas.half_width
        y = (jitter[:, 20 + index] * 0.95 - 1) * canvas.half_height
        distance = torch.hypot(canvas.x - _wide(x), canvas.y - _wide(y)) - 0.022
        canvas.paint(distance, white, _wide(light.night.float()))


def _paint_sun(canvas: Canvas, light: Light) -> None:
    colour = _colour(SUN, light.sky)
    distance = torch.hypot(canvas.x - light.x, canvas.y - light.y)
    glow = torch.exp(-((distance / 0.5) ** 2)) * _wide(torch.where(light.sunset, 0.6, 0.22))
    canvas.blend(glow, colour)
    canvas.paint(distance - _wide(torch.where(light.sunset, 0.24, 0.19)), colour)


def _paint_clouds(canvas: Canvas, light: Light, facts: Tensor, jitter: Tensor) -> None:
    colour = _colour(CLOUD, light.sky)
    present = _wide(facts[:, Fact.CLOUDS].float()) * 0.85
    for index, row in enumerate((-0.72, -0.46, -0.28)):
        x = _wide((jitter[:, 30 + index] * 1.6 - 0.8) * canvas.half_width)
        y = (row + 0.06 * _wide(jitter[:, 33 + index])) * canvas.half_height
        for offset, width, thick in ((0.0, 0.42, 0.075), (-0.22, 0.26, 0.05), (0.2, 0.24, 0.055)):
            bulge = ((canvas.x - x - offset) / width) ** 2 + ((canvas.y - y + thick * 0.6) / thick) ** 2
            canvas.blend(torch.sigmoid((1 - bulge) * 4) * present, colour)


def _paint_ocean(canvas: Canvas, light: Light, present: Tensor) -> None:
    depth = ((canvas.y - light.horizon) / (canvas.half_height - light.horizon)).clamp(0, 1)
    under = ((canvas.y - light.horizon) / canvas.pixel + 0.5).clamp(0, 1) * _wide(present)
    far = _colour(tuple(stops[2] for stops in SKY_STOPS), light.sky)
    sea = _colour(SEA, light.sky)
    mixed = far[:, :, None, None] * 0.55 + sea[:, :, None, None] * 0.45
    shore = mixed + (sea[:, :, None, None] - mixed) * (depth * 2.5).clamp(0, 1)[:, None]
    canvas.blend(under, shore * (1 - 0.12 * depth[:, None]) - 0.12 * depth[:, None])
    # waves thin out towards the horizon; the path of light widens towards the viewer
    wave = torch.sin(26 * (depth + 0.04).sqrt() * canvas.half_height * 1.6)
    path = (1 - (canvas.x - light.x).abs() / (0.13 + 0.26 * depth)).clamp(0, 1)
    canvas.blend(under * (path * 1.6).clamp(0, 1) * (0.5 + 0.38 * wave), _colour(SUN, light.sky))


def _paint_mountains(canvas: Canvas, light: Light, jitter: Tensor, present: Tensor) -> None:
    rock = _colour(GROUND, torch.full_like(light.sky, 2))
    snow = light.shade(torch.full_like(rock, 0.92)) * 0.6 + 0.4 * torch.full_like(rock, 0.55) * light.dim
    for index, (x, top, slope) in enumerate(((-0.62, 0.60, 1.0), (0.58, 0.66, 1.05), (0.0, 0.86, 0.95))):
        peak_x = _wide((x + (jitter[:, 36 + index] - 0.5) * 0.16) * canvas.half_width)
        peak_y = light.horizon - top * 0.9 * canvas.half_height + 0.12 * _wide(jitter[:, 39 + index] - 0.5)
        slant = (peak_y - canvas.y + (canvas.x - peak_x).abs() / slope * 1.15) * 0.66
        canvas.paint(slant, light.shade(rock * (0.75 + 0.12 * index) - 0.06), _wide(present))
        cap = canvas.y - peak_y - 0.24 - 0.05 * torch.sin((canvas.x - peak_x) * 28)
        canvas.paint(torch.maximum(slant, cap), snow, _wide(present))


def _paint_hills(canvas: Canvas, light: Light, ground: Tensor, jitter: Tensor) -> None:
    """Draws two rolling layers for hills and desert; the mountains' foreground is the front layer in green."""
    colour = _colour(GROUND, torch.where(ground == 2, 1, ground))
    solid, back = (ground > 0).float(), ((ground == 1) | (ground == 3)).float()
    phase = jitter[:, 42:44] * 6.28
    far = light.horizon + 0.10 * torch.sin(canvas.x * 2.4 + _wide(phase[:, 0])) - canvas.y
    canvas.paint(far * 0.95, light.shade((colour + 1) * 0.82 - 1), _wide(back))
    near = light.horizon + 0.34 * canvas.half_height + 0.11 * torch.sin(canvas.x * 1.9 + _wide(phase[:, 1])) - canvas.y
    canvas.paint(near * 0.95, light.shade(colour), _wide(solid))


def _paint_boat(canvas: Canvas, light: Light, facts: Tensor, jitter: Tensor) -> None:
    """Draws a sailing boat on the side away from the sun, backlit."""
    present = _wide(facts[:, Fact.BOAT].float())
    away = torch.where(light.x[:, 0, 0].abs() > 0.2, -torch.sign(light.x[:, 0, 0]), torch.sign(jitter[:, 44] - 0.5))
    x, y = _wide(away * (0.46 + 0.1 * jitter[:, 45])) * canvas.half_width, light.horizon + 0.16
    hull = torch.maximum((canvas.y - y).abs() - 0.065, (canvas.x - x).abs() - 0.24 + (canvas.y - y) * 0.8)
    wood = torch.full((len(facts), 3), -0.35, device=facts.device)
    wood[:, 2] = -0.7
    canvas.paint(hull, light.shade(wood), present)
    sail_white = light.shade(torch.full_like(wood, 0.92)) * 0.7 + 0.2
    left, low = x - 0.05 - canvas.x, canvas.y - y + 0.095
    right = ((canvas.x - x) * 1.0 - 0.26 - (canvas.y - y + 0.095) * 0.52) * 0.88
    canvas.paint(torch.maximum(low, torch.maximum(left, right)), sail_white, present)
