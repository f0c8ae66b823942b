"""Networks with regions of autocast or gradients, and BatchNorm beside in-place operations, give their own results."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module
from tests.stable_fast.networks import rel_error


class InRegion(nn.Module):
    def __init__(self, region: Any) -> None:
        super().__init__()
        self.linear, self.region = nn.Linear(8, 8), region
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        region: AbstractContextManager[Any] = self.region()
        with region:
            y = self.linear(x) * 2
        return y + 1


REGIONS = {
    "autocast off": partial(torch.autocast, "cpu", enabled=False),
    "autocast to bfloat16": partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "autocast of another device": partial(torch.autocast, "cuda", enabled=False),
    "gradients": torch.enable_grad,
    "no gradients": torch.no_grad,
}


@torch.no_grad()
@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_a_region(region: Any) -> None:
    module, x = InRegion(region), torch.randn(2, 8)
    fast = compile_module(module, {"x": x}, dims={"x": ("batch", None)})
    for rows in (2, 3):
        x = torch.randn(rows, 8)
        result, expected = fast(x), module(x)
        assert result.dtype == expected.dtype and rel_error(result, expected) < 1e-5
    assert fast.report.counters.traces == 1 and not result.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("in_place", [False, True])
def test_batch_norm_beside_an_activation_in_place(in_place: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(in_place)).eval()
    module[1].running_mean.normal_()
    x = torch.randn(2, 3, 8, 8)
    fast = compile_module(module, {"input": x})
    assert rel_error(fast(x), module(x)) < 1e-5
