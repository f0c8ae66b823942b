"""Checksums of many tensors in one launch, against the same sum in PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.stable_fast.kernels.checksum import CHUNK, can_read, checksum_reference, launch_checksums, table_of
from tests.stable_fast.kernels.kernel_device import Maker, on_devices


def sums(*tensors: Tensor) -> list[int]:
    return launch_checksums(table_of(tensors), len(tensors)).tolist()


@on_devices
def test_each_tensor_has_its_own_sum(device: str) -> None:
    make = Maker(device, torch.float16)
    tensors = [make.rows(2 * CHUNK + 8), make.image(2, 4, 3, 3), make.rows(5, 16).t(), make.rows(8)]
    tensors += [make.rows(4), make.rows(1), make.rows(7, 3), make.rows(2 * CHUNK + 3), make.rows(2 * CHUNK)]
    assert all(can_read(tensor) for tensor in tensors)
    memory = [tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8) for tensor in tensors]
    assert sums(*tensors) == [checksum_reference(each).item() for each in memory]


@on_devices
@pytest.mark.parametrize("size", [1, 3, 17, 4 * CHUNK + 1])
def test_each_byte_counts(size: int, device: str) -> None:
    x = torch.zeros(size, dtype=torch.uint8, device=device)
    seen = sums(x)
    for place in {0, size // 2, size - 1}:
        x.zero_()
        x[place] = 1
        seen += sums(x)
    assert len(set(seen)) == 1 + len({0, size // 2, size - 1})


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_other_values_and_other_places_are_other_sums(dtype: torch.dtype, device: str) -> None:
    x = torch.zeros(CHUNK + 16, dtype=dtype, device=device)
    seen = sums(x)
    for place in (0, 1, CHUNK // 2, CHUNK + 15):
        x.zero_()
        x[place] = 1
        seen += sums(x)
    assert len(set(seen)) == 5


@on_devices
def test_values_that_change_places_are_another_sum(device: str) -> None:
    x = Maker(device, torch.float32).rows(64, 64)
    assert len({*sums(x), *sums(x.flip(0)), *sums(x.flip(1)), *sums(-x)}) == 4


@on_devices
def test_tensors_with_gaps_and_odd_addresses_are_left_to_pytorch(device: str) -> None:
    make = Maker(device, torch.float16)
    assert not can_read(make.rows(8, 8)[:, :4]) and not can_read(make.rows(1, 8).expand(4, 8))
    assert not can_read(make.rows(0, 8)) and not can_read(make.rows(17)[1:])
