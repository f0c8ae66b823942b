"""Clamping for infinities: without one nothing changes, and one anywhere clamps all, also in another program's part."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.norm import clamp_infinities
from modules.stable_fast.kernels.norm.clamp_infinities import (
    clamp_infinities_reference,
    launch_clamp_infinities,
    launch_flags,
)
from tests.stable_fast.kernels.kernel_device import Maker, in_dtypes, on_devices

INFINITY = float("inf")


@on_devices
@in_dtypes
@pytest.mark.parametrize("place", [None, 0, -1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 77), (2, 65, 96)], ids=str)
def test_all_or_nothing(shape, place, dtype, device):
    x = Maker(device, dtype).rows(*shape)
    if place is not None:
        x.view(-1)[place] = -INFINITY
    y = launch_clamp_infinities(x, 0.5)
    assert torch.equal(y, clamp_infinities_reference(x, 0.5)) and torch.equal(y, x) == (place is None)


@on_devices
def test_programs_that_take_several_blocks(device, monkeypatch):
    monkeypatch.setattr(clamp_infinities, "MOST_FLAGS", 2)
    x = Maker(device, torch.float16).rows(3, 4096)
    x[2, -1] = INFINITY
    assert launch_flags(x).tolist() == [0, 1]
    assert launch_clamp_infinities(x, 1.0).abs().max() == 1.0


@on_devices
def test_what_is_no_number_stays(device):
    x = torch.tensor([float("nan"), INFINITY, -INFINITY, 3.0], device=device)
    y = launch_clamp_infinities(x, 2.0)
    assert y[0].isnan() and y[1:].tolist() == [2.0, -2.0, 2.0]
