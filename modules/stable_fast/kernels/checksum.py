"""Checksums of many tensors in one launch: the sum of all words, each times a number that depends on its place.

So a sum also changes if the same values change places. Sums are of whole numbers modulo 2^64, which makes them exact in
any order. The bytes after the last 16 that are read at once count like words.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import reads_any_type
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.triton_import import jit, tl

WORD = 4  # bytes
ALIGNED = 16  # bytes: four words are read at once
CHUNK = 16384  # words that one program reads
_SPREAD, _MIX = 0x9E3779B1, 0x85EBCA6B  # odd numbers without a pattern in their bits


def weights_of_places(places: Tensor) -> Tensor:
    """The factor of each place: an odd number below 2^32."""
    spread = (places * _SPREAD) & 0xFFFFFFFF
    return (((spread ^ (spread >> 15)) * _MIX) & 0xFFFFFFFF) | 1


def checksum_reference(memory: Tensor) -> Tensor:
    """The checksum of memory, given as bytes [n]."""
    size = memory.numel() // ALIGNED * ALIGNED
    words = torch.cat([memory[:size].view(torch.int32).long(), memory[size:].view(torch.int8).long()])
    return (words * weights_of_places(torch.arange(len(words), device=memory.device))).sum()


@jit
def _weighted(word, place, SPREAD: tl.constexpr, MIX: tl.constexpr):
    spread = place.to(tl.uint32) * SPREAD
    weight = (spread ^ (spread >> 15)) * MIX | 1
    return word.to(tl.int64) * weight.to(tl.int64)


@jit
def _checksum_kernel(
    table_ptr,
    sums_ptr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
    SPREAD: tl.constexpr,
    MIX: tl.constexpr,
):
    row = table_ptr + tl.program_id(0).to(tl.int64) * 5
    words = tl.multiple_of(tl.load(row).to(tl.pointer_type(tl.int32)), 16)
    count = tl.multiple_of(tl.load(row + 1), 4)
    first = tl.load(row + 2)
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, CHUNK, BLOCK):
        offset = start + tl.arange(0, BLOCK)
        word = tl.load(words + offset, mask=offset < count, other=0)
        total += _weighted(word, first + offset, SPREAD, MIX)
    last = tl.arange(0, ALIGNED)
    byte = tl.load((words + count).to(tl.pointer_type(tl.int8)) + last, mask=last < tl.load(row + 4), other=0)
    rest = tl.sum(_weighted(byte, first + count + last, SPREAD, MIX))
    tl.atomic_add(sums_ptr + tl.load(row + 3), tl.sum(total) + rest)


def can_read(x: Tensor) -> bool:
    """Whether the kernel reads this tensor: all of its bytes lie together, in any order of dimensions."""
    is_aligned = x.numel() > 0 and x.data_ptr() % ALIGNED == 0
    return reads_any_type(x) and is_aligned and torch.ops.aten.is_non_overlapping_and_dense(x)


def table_of(tensors: Sequence[Tensor]) -> Tensor:
    """Where each program reads [programs, 5]: its address, the number of words, its first place, its tensor, and the
    number of bytes after the words.
    """
    sizes = torch.tensor([x.numel() * x.element_size() for x in tensors])
    addresses = torch.tensor([x.data_ptr() for x in tensors])
    words = sizes // ALIGNED * (ALIGNED // WORD)
    programs = ((words + CHUNK - 1) // CHUNK).clamp(min=1)
    which = torch.repeat_interleave(torch.arange(len(tensors)), programs)
    first = (torch.arange(len(which)) - (programs.cumsum(0) - programs)[which]) * CHUNK
    counts = (words[which] - first).clamp(max=CHUNK)
    is_last = first + counts == words[which]
    rests = torch.where(is_last, sizes[which] % ALIGNED, 0)
    return torch.stack([addresses[which] + WORD * first, counts, first, which, rests], dim=1).to(tensors[0].device)


def launch_checksums(table: Tensor, tensors: int) -> Tensor:
    """The checksum of each of `tensors` tensors, which `table` lists. They must still be at their addresses."""
    sums = torch.zeros(tensors, dtype=torch.int64, device=table.device)
    blocks = {"CHUNK": CHUNK, "BLOCK": 2048, "ALIGNED": ALIGNED}
    launch_kernel(_checksum_kernel, (len(table),), table, sums, **blocks, SPREAD=_SPREAD, MIX=_MIX, num_warps=8)
    return sums
