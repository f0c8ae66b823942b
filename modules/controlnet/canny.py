"""Detects edges (Canny 1986) with bit-identical results to OpenCV's Canny, which was used to train ControlNets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]
Flags = NDArray[np.bool_]

_TAN_SHIFT = 15
_TAN_22 = round(0.4142135623730951 * 2**_TAN_SHIFT)  # tan(22.5 degrees) in fixed point


def canny_edges(pixels: NDArray[np.uint8], low: float, high: float) -> Flags:
    """Finds edges [H, W] in pixels [H, W, C]; `low` and `high` are thresholds for the Sobel gradient |dx| + |dy|."""
    dx, dy = gradients(pixels.astype(np.int32))
    size = np.abs(dx) + np.abs(dy)
    ridge = _is_ridge(dx, dy, size)
    return _connected(ridge & (size > np.floor(high)), ridge & (size > np.floor(low)))


def gradients(pixels: Integers) -> tuple[Integers, Integers]:
    """Returns the 3x3 Sobel derivatives; each pixel uses the channel with the largest gradient."""
    p = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across, down = p[:, 2:] - p[:, :-2], p[2:] - p[:-2]
    dx = across[:-2] + 2 * across[1:-1] + across[2:]
    dy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    largest = np.argmax(np.abs(dx) + np.abs(dy), axis=-1)[..., None]
    return np.take_along_axis(dx, largest, -1)[..., 0], np.take_along_axis(dy, largest, -1)[..., 0]


def _is_ridge(dx: Integers, dy: Integers, size: Integers) -> Flags:
    """Marks gradients at least as large as both neighbours along the gradient's direction, rounded to 45 degrees."""
    p = np.pad(size, 1)

    def neighbour(y: int, x: int) -> Integers:
        return p[1 + y : 1 + y + size.shape[0], 1 + x : 1 + x + size.shape[1]]

    x, y = np.abs(dx), np.abs(dy) << _TAN_SHIFT
    flat, steep = y < x * _TAN_22, y > x * _TAN_22 + (x << (_TAN_SHIFT + 1))
    falling = (dx ^ dy) < 0
    diagonal = np.where(
        falling,
        (size > neighbour(-1, 1)) & (size > neighbour(1, -1)),
        (size > neighbour(-1, -1)) & (size > neighbour(1, 1)),
    )
    level = (size > neighbour(0, -1)) & (size >= neighbour(0, 1))
    upright = (size > neighbour(-1, 0)) & (size >= neighbour(1, 0))
    return np.where(flat, level, np.where(steep, upright, diagonal))


def _connected(strong: Flags, weak: Flags) -> Flags:
    """Returns the strong pixels and all weak pixels connected to a strong pixel through weak pixels."""
    width = strong.shape[1] + 2
    open_, edges = np.pad(weak, 1).ravel(), np.pad(strong, 1).ravel()
    open_ &= ~edges
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    front = np.flatnonzero(edges)
    while front.size:
        near = (front[:, None] + around).ravel()
        front = np.unique(near[open_[near]])
        open_[front], edges[front] = False, True
    return edges.reshape(-1, width)[1:-1, 1:-1]
