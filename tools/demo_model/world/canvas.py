"""Paints on a batch of pictures by distance and by alpha."""

from __future__ import annotations

import torch
from torch import Tensor


class Canvas:
    """A batch of pictures [B, 3, h, w] in -1..1 with half the shorter side as the unit; y grows downwards."""

    def __init__(
        self, batch: int, size: tuple[int, int], device: torch.device, window: Tensor | None, crop: int
    ) -> None:
        height, width = size
        unit = min(size) / 2
        rows, columns = (height, width) if window is None else (crop, crop)
        y = torch.arange(rows, device=device, dtype=torch.float32) + 0.5 - height / 2
        x = torch.arange(columns, device=device, dtype=torch.float32) + 0.5 - width / 2
        y, x = y[None, :, None].expand(batch, -1, columns), x[None, None, :].expand(batch, rows, -1)
        if window is not None:
            y, x = y + window[:, 0, None, None], x + window[:, 1, None, None]
        self.x, self.y = x / unit, y / unit
        self.pixel = 1 / unit
        self.half_width, self.half_height = width / min(size), height / min(size)
        self.image = torch.zeros(batch, 3, rows, columns, device=device)

    def paint(self, distance: Tensor, colour: Tensor, alpha: Tensor | float = 1.0) -> None:
        """Covers the area of negative `distance` [B, h, w] with colour [B, 3] in -1..1."""
        self.blend((0.5 - distance / self.pixel).clamp(0, 1) * alpha, colour)

    def blend(self, alpha: Tensor, colour: Tensor) -> None:
        """Mixes in `colour` [B, 3] or [B, 3, h, w] by `alpha` [B, h, w]."""
        colour = colour[:, :, None, None] if colour.dim() == 2 else colour
        self.image = self.image + alpha[:, None] * (colour - self.image)
