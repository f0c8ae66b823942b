"""GroupNorm and LayerNorm kernels against float64, each launch strategy by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels import _group_norm_kernels as group_norm
from modules.stable_fast.kernels.layer_norm import launch_layer_norm
from tests.stable_fast.kernel_device import Maker, assert_near, doubled, in_dtypes, on_devices

LAUNCHES = [group_norm.launch_one_kernel, group_norm.launch_two_kernels]
# batch, channels, height, width, groups: UNet ratios, a group of 10 channels, odd channels, odd sizes, one group.
SHAPES = [(2, 40, 8, 8, 4), (1, 60, 5, 7, 2), (8, 15, 3, 3, 3), (3, 24, 16, 4, 1), (2, 64, 2, 2, 32)]


@on_devices
@in_dtypes
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_group_norm_silu(launch, shape, dtype, device):
    batch, channels, height, width, groups = shape
    make = Maker(device, dtype)
    x, weight, bias = make.image(batch, channels, height, width), make.rows(channels), make.rows(channels)
    y = launch(x, None, weight, bias, groups, 1e-5, True)
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.silu(F.group_norm(dx, groups, dw, db, 1e-5)))
    assert y.is_contiguous(memory_format=torch.channels_last)


@on_devices
@in_dtypes
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("split", [20, 26])  # at the seam of two groups, and inside one
def test_group_norm_of_a_virtual_concatenation(launch, split, dtype, device):
    make = Maker(device, dtype)
    a, b = make.image(2, split, 6, 5), make.image(2, 40 - split, 6, 5)
    weight, bias = make.rows(40), make.rows(40)
    y = launch(a, b, weight, bias, 4, 1e-6, False)
    da, db, dw, dbias = doubled(a, b, weight, bias)
    assert_near(y, F.group_norm(torch.cat((da, db), 1), 4, dw, dbias, 1e-6))


@on_devices
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_large_mean_costs_no_precision(launch, device):
    """Sums of squares would lose everything here: the variance is a millionth of the squared mean."""
    make = Maker(device, torch.float32)
    x = make.image(2, 8, 40, 40) + 1000.0
    ones = torch.ones(8, device=device)
    y = launch(x, None, ones, 0 * ones, 2, 1e-5, False)
    assert_near(y, F.group_norm(x.double(), 2), slack=10)


@on_devices
def test_many_rows_take_the_looping_branch(device, monkeypatch):
    monkeypatch.setattr(group_norm, "ONE_TILE_ELEMENTS", 1024)
    assert not group_norm.one_kernel_is_single_tile(33 * 33, 6)
    assert group_norm.one_kernel_is_single_tile(16, 6)
    make = Maker(device, torch.float32)
    x, weight, bias = make.image(2, 12, 33, 33), make.rows(12), make.rows(12)
    y = group_norm.launch_one_kernel(x, None, weight, bias, 2, 1e-5, True)
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.silu(F.group_norm(dx, 2, dw, db, 1e-5)))


@on_devices
def test_two_kernels_merge_several_chunks(device, monkeypatch):
    seen = []
    kernel = group_norm._apply_kernel
    monkeypatch.setattr(group_norm, "_apply_kernel", _Recorder(kernel, seen))
    make = Maker(device, torch.float32)
    x, weight, bias = make.image(1, 64, 40, 25), make.rows(64), make.rows(64)
    y = group_norm.launch_two_kernels(x, None, weight, bias, 2, 1e-5, False)
    assert seen[0][12] > 1  # chunks
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.group_norm(dx, 2, dw, db, 1e-5))


class _Recorder:
    """Notes the positional arguments of a launch and passes it on."""

    def __init__(self, kernel, seen):
        self._kernel, self._seen = kernel, seen

    def __getitem__(self, grid):
        def launch(*args, **options):
            self._seen.append(args)
            return self._kernel[grid](*args, **options)

        return launch


@on_devices
def test_group_norm_refuses_another_layout(device):
    x, ones = torch.zeros(2, 8, 4, 4, device=device), torch.ones(8, device=device)
    with pytest.raises(AssertionError, match="channels_last"):
        group_norm.launch_one_kernel(x, None, ones, ones, 2, 1e-5, False)


@on_devices
@in_dtypes
@pytest.mark.parametrize("shape", [(2, 9, 40), (1, 3, 77), (4, 5, 1280), (1, 1, 1)], ids=str)
def test_layer_norm(shape, dtype, device):
    make = Maker(device, dtype)
    x, weight, bias = make.rows(*shape) + 5.0, make.rows(shape[-1]), make.rows(shape[-1])
    _, y = launch_layer_norm(x, None, weight, bias, 1e-5)
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.layer_norm(dx, shape[-1:], dw, db, 1e-5))


@on_devices
@in_dtypes
def test_add_layer_norm_normalises_the_rounded_sum(dtype, device):
    make = Maker(device, dtype)
    x, residual, weight, bias = make.rows(2, 7, 48), make.rows(2, 7, 48), make.rows(48), make.rows(48)
    total, y = launch_layer_norm(x, residual, weight, bias, 1e-5)
    if dtype == torch.bfloat16 and device == "cpu":
        assert_near(total, x.double() + residual.double())  # the interpreter truncates to bfloat16
    else:
        assert torch.equal(total, x + residual)
    dt, dw, db = doubled(total, weight, bias)
    assert_near(y, F.layer_norm(dt, (48,), dw, db, 1e-5))
