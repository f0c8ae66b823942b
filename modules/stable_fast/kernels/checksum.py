"""Checksums of many tensors in one launch: each chunk of memory gives the sum of its words, each times an odd number.

The sum is taken modulo 2**64, and words have at most 32 bits. So another value of one word always gives another sum,
and so do other orders and signs unless 64 bits happen to agree.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import number_of, runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.triton_import import jit, tl

BLOCK = 1024  # words that one program reads at once
CHUNK = 16 * BLOCK  # words for each program
GROWTH = 6364136223846793005  # odd; each further block of a chunk counts this many times more
WIDEST = 4  # bytes of a word; narrower ones are read where these do not fit


def multipliers(device: torch.device) -> Tensor:
    """An odd number of 63 bits for each word of a block, the same each time."""
    generator = torch.Generator().manual_seed(1)
    return (torch.randint(2**62, [BLOCK], generator=generator) * 2 + 1).to(device)


def checksum_reference(words: Tensor) -> int:
    """The checksum of one chunk, whose words are whole numbers."""
    padded = torch.zeros(-(-len(words) // BLOCK) * BLOCK, dtype=torch.int64)
    padded[: len(words)] = words
    total = torch.zeros(BLOCK, dtype=torch.int64)
    for block in padded.view(-1, BLOCK):
        total = total * GROWTH + block
    return int((total * multipliers(words.device)).sum())


@jit
def _checksum_kernel(
    chunks_ptr, sums_ptr, multipliers_ptr,
    WORD: tl.constexpr, ALIGNMENT: tl.constexpr, GROWTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    words_ptr = tl.load(chunks_ptr + 2 * chunk).to(tl.pointer_type(WORD))  # pyright: ignore[reportArgumentType]
    words_ptr = tl.multiple_of(words_ptr, ALIGNMENT)
    count = tl.load(chunks_ptr + 2 * chunk + 1)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.int64)
    whole = count // BLOCK * BLOCK
    for first in range(0, whole, BLOCK):
        total = total * GROWTH + tl.load(words_ptr + first + lane).to(tl.int64)
    if whole < count:
        rest = tl.load(words_ptr + whole + lane, mask=whole + lane < count, other=0)
        total = total * GROWTH + rest.to(tl.int64)
    tl.store(sums_ptr + chunk, tl.sum(total * tl.load(multipliers_ptr + lane)))


class ChecksumTable:
    """Where tensors of one device lie in memory. Valid while they lie there.

    `owners`: for each sum, the number of its tensor, on the CPU.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        assert all(runs_kernels(x) and is_dense(x) and x.device == tensors[0].device for x in tensors)
        self._device = tensors[0].device
        self._multipliers = multipliers(self._device)
        self._launches: list[tuple[int, Tensor]] = []
        owners: list[Tensor] = []
        groups: dict[int, list[int]] = defaultdict(list)
        for number, x in enumerate(tensors):
            groups[_alignment(x)].append(number)
        for alignment, numbers in groups.items():
            chunks, owner = _chunks([tensors[number] for number in numbers], min(alignment, WIDEST))
            self._launches.append((alignment, chunks.to(self._device)))
            owners.append(torch.tensor(numbers)[owner])
        self.owners = torch.cat(owners)

    @property
    def launches(self) -> int:
        return len(self._launches)

    def sums(self) -> Tensor:
        """The checksum of each chunk. Waits for nothing."""
        sums = torch.empty(len(self.owners), dtype=torch.int64, device=self._device)
        if self._device.type != "cuda":
            self._launch(sums)
        else:
            with torch.cuda.device(number_of(self._device)):
                self._launch(sums)
        return sums

    def _launch(self, sums: Tensor) -> None:
        first = 0
        for alignment, chunks in self._launches:
            launch_kernel(
                _checksum_kernel, (len(chunks),), chunks, sums[first : first + len(chunks)], self._multipliers,
                WORD=_word(alignment), ALIGNMENT=alignment, GROWTH=GROWTH, BLOCK=BLOCK,
            )  # fmt: skip
            first += len(chunks)


def is_dense(x: Tensor) -> bool:
    """Whether a tensor has elements, and the memory between the first and the last holds nothing else."""
    return x.numel() > 0 and x.data_ptr() != 0 and _span(x) <= x.numel()


def _span(x: Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))


def _alignment(x: Tensor) -> int:
    """The most bytes that divide the address of `x`, or the widest word that divides its memory if that is narrower."""
    address, size = x.data_ptr(), _span(x) * x.element_size()
    width = next(width for width in (WIDEST, 2, 1) if not (address | size) % width)
    return 16 if width == WIDEST and address % 16 == 0 else width


def _word(alignment: int) -> Any:
    return {1: tl.uint8, 2: tl.int16}.get(alignment, tl.int32)


def _chunks(tensors: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """The address and the number of words of each chunk, and the number of its tensor."""
    addresses = torch.tensor([x.data_ptr() for x in tensors])
    words = torch.tensor([_span(x) * x.element_size() // width for x in tensors])
    counts = (words + CHUNK - 1) // CHUNK
    owner = torch.repeat_interleave(counts)
    place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    starts = addresses[owner] + place * CHUNK * width
    return torch.stack([starts, (words[owner] - place * CHUNK).clamp(max=CHUNK)], dim=1), owner
