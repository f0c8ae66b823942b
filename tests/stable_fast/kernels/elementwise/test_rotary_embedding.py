"""Rotary embedding against float64: odd sizes, cosines of the sequence or of each row, and transposed heads."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.elementwise.rotary_embedding import launch_rotary_embedding
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, in_dtypes, on_devices

# The shape of x, and that of cosines and sines.
SHAPES = [
    ((2, 9, 3, 40), (1, 9, 1, 40)),  # the sequence second, as in Flux
    ((2, 3, 9, 64), (2, 1, 9, 64)),  # the sequence third, as in Llama
    ((3, 1, 5, 6), (3, 1, 5, 6)),
    ((1, 7, 1, 2), (1, 1, 1, 2)),
    ((2, 33, 134), (2, 33, 134)),  # heads side by side, as in LTX
    ((2, 3, 9, 6), (9, 6)),
]


def quarter_turn(channels, interleaved):
    """The matrix that takes (a, b) to (-b, a), for every pair."""
    turn = torch.zeros(channels, channels, dtype=torch.float64)
    for i in range(channels // 2):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + channels // 2)
        turn[b, a], turn[a, b] = -1.0, 1.0
    return turn


def expected(x, cos, sin, interleaved):
    turn = quarter_turn(x.shape[-1], interleaved).to(x.device)
    return x.double() * cos.double() + x.double() @ turn * sin.double()


@on_devices
@in_dtypes
@pytest.mark.parametrize("interleaved", [True, False], ids=["neighbours", "halves"])
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_rotary_embedding(sizes, interleaved, dtype, device):
    make = Maker(device, dtype)
    x, cos, sin = make.rows(*sizes[0]), make.rows(*sizes[1]), make.rows(*sizes[1])
    y = launch_rotary_embedding(x, cos, sin, interleaved)
    assert y.is_contiguous() and y.dtype == dtype
    assert_near(y, expected(x, cos, sin, interleaved), slack=2)


@on_devices
@in_dtypes
@pytest.mark.parametrize("interleaved", [True, False], ids=["neighbours", "halves"])
def test_transposed_heads_of_wider_rows_and_cosines_in_float32(interleaved, dtype, device):
    make, angles = Maker(device, dtype), Maker(device, torch.float32)
    x = make.rows(2, 9, 3 * 5 * 24).chunk(3, dim=-1)[1].unflatten(-1, (5, 24)).transpose(1, 2)
    cos, sin = angles.rows(9, 48)[:, :24][None, None], angles.rows(9, 24)[None, None]
    assert_near(launch_rotary_embedding(x, cos, sin, interleaved), expected(x, cos, sin, interleaved), slack=2)
