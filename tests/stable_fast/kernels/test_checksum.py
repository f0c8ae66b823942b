"""Checksums of many tensors at once: the reference's, and another one for any change that sums of bits miss."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor

from modules.stable_fast.kernels.checksum import CHUNK, ChecksumTable, checksum_reference, is_dense
from tests.stable_fast.kernels.kernel_device import on_devices


def tensors(device: str) -> list[Tensor]:
    """Tensors whose words have 4, 2 and 1 bytes; of one chunk and of three; channels last, expanded, and a part."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randn(2 * CHUNK * 2 + 26, generator=generator).half().to(device)
    return [
        torch.randn(33, 65, generator=generator).to(device),
        half,
        half[1:7],
        torch.arange(5, dtype=torch.uint8, device=device),
        torch.randn(2, 3, 4, 4, generator=generator).to(device, memory_format=torch.channels_last),
        torch.randn(3, 1, generator=generator).to(device).expand(3, 9),
    ]


def sums_of(table: ChecksumTable) -> dict[int, list[int]]:
    sums: dict[int, list[int]] = defaultdict(list)
    for owner, total in zip(table.owners.tolist(), table.sums().tolist(), strict=True):
        sums[owner].append(total)
    return sums


@on_devices
def test_each_chunk_has_the_sum_of_the_reference(device: str) -> None:
    every = tensors(device)
    table = ChecksumTable(every)
    sums = sums_of(table)
    assert table.launches == 3 and len(sums) == len(every)
    words = every[1].cpu().view(torch.int32)
    assert sums[1] == [checksum_reference(chunk) for chunk in words.split(CHUNK)] and len(sums[1]) == 3
    assert sums[2] == [checksum_reference(every[2].cpu().view(torch.int16))]
    assert sums[3] == [checksum_reference(every[3].cpu())]
    assert sums[4] == [checksum_reference(every[4].cpu().permute(0, 2, 3, 1).flatten().view(torch.int32))]
    assert sums[5] == [checksum_reference(every[5].cpu()[:, :1].flatten().view(torch.int32))]
    assert sums == sums_of(table)


@on_devices
def test_other_elements_signs_and_orders_give_other_sums_of_their_tensor_alone(device: str) -> None:
    x, other = torch.randn(64, 33, device=device).half(), torch.ones(7, device=device)
    table = ChecksumTable([x, other])
    seen = [sums_of(table)]
    for change in (
        lambda: x[63, 32].add_(1),
        lambda: x.neg_(),
        lambda: x[:2].neg_(),
        lambda: x[0, 3::4].neg_(),  # the highest bits of words of 64
        lambda: x.copy_(x.flip(0)),
        lambda: x[:2].copy_(x[:2].flip(0)),
        lambda: x.zero_(),
    ):
        change()
        seen.append(sums_of(table))
    assert len({tuple(sums[0]) for sums in seen}) == len(seen)
    assert len({tuple(sums[1]) for sums in seen}) == 1


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.ones(4, 6), True),
        (torch.ones(4, 6).T, True),
        (torch.ones(4, 1).expand(4, 5), True),
        (torch.ones(4, 6)[:, :3], False),
        (torch.ones(0), False),
        (torch.ones(4, device="meta"), False),
    ],
)
def test_memory_with_other_data_between_is_not_read(tensor: Tensor, *, expected: bool) -> None:
    assert is_dense(tensor) is expected
