"""The card that a tensor lies on: how it multiplies matrices, and which kernels it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache

import torch
from torch import Tensor

from modules.stable_fast.kernels.triton_import import HAS_TRITON, INTERPRETED

FIRST_CAPABILITY = (7, 5)  # of the cards that our kernels run on


class CardClass(Enum):
    """How a card multiplies matrices, which decides which kernels are candidates there."""

    TURING = "turing"  # 7.5, such as RTX 20: Triton compiles products to plain multiply-adds, so libraries serve it
    MMA = "mma"  # 8.0 to 8.9 and 12.x, such as RTX 30, 40 and 50: products of one warp
    WGMMA = "wgmma"  # 9.0, Hopper: products of four warps, and copies of whole tiles by descriptor (TMA)
    TCGEN05 = "tcgen05"  # 10.x, such as B200: products in a memory of their own


@dataclass(frozen=True)
class Card:
    """What kernels need to know of an NVIDIA GPU."""

    capability: tuple[int, int]
    multiprocessors: int

    @property
    def chip(self) -> str:
        """The architecture and its number of multiprocessors, such as "sm89-128"."""
        major, minor = self.capability
        return f"sm{major}{minor}-{self.multiprocessors}"

    @property
    def kind(self) -> CardClass:
        major = self.capability[0]
        if major == 9:
            return CardClass.WGMMA
        if major in (10, 11):
            return CardClass.TCGEN05
        return CardClass.TURING if major < 8 else CardClass.MMA


def card_named(chip: str) -> Card | None:
    """The card with this `Card.chip`; None if that is not the name of an NVIDIA card."""
    found = re.fullmatch(r"sm(\d+)(\d)-(\d+)", chip)
    return Card((int(found[1]), int(found[2])), int(found[3])) if found else None


# Triton's interpreter runs the kernels of every card on the CPU.
ANY_CARD = Card((8, 0), 8)


@cache
def card_at(device_index: int) -> Card:
    """The GPU with this number."""
    count = torch.cuda.get_device_properties(device_index).multi_processor_count
    return Card(torch.cuda.get_device_capability(device_index), count)


def number_of(device: torch.device) -> int:
    """The number of a GPU; that of the current one if the device does not say."""
    # A device may have no index, although PyTorch's type stubs declare one.
    no_index = device.index is None  # pyright: ignore[reportUnnecessaryComparison]
    return torch.cuda.current_device() if no_index else device.index


def card_of(x: Tensor) -> Card | None:
    """The NVIDIA GPU that `x` lies on, or None."""
    return card_at(x.device.index) if x.is_cuda and torch.version.hip is None else None


def kernel_card(x: Tensor) -> Card:
    """The card that kernels for `x` are made for; under the interpreter, one that every kernel fits."""
    return card_of(x) or ANY_CARD


def card_class(x: Tensor) -> CardClass:
    return kernel_card(x).kind


def writes_half(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether a kernel that reads `x`, of any type, and writes this half precision runs where `x` lies."""
    card = card_of(x)
    if card is None or not HAS_TRITON or x.numel() == 0:
        return False
    if dtype == torch.float16:
        return card.capability >= FIRST_CAPABILITY
    return dtype == torch.bfloat16 and card.kind is not CardClass.TURING


def uses_kernels(x: Tensor) -> bool:
    """Whether the Triton, cuDNN and cuBLAS implementations apply. Elsewhere the plain PyTorch reference runs."""
    return writes_half(x, x.dtype)


def serves(card: Card, kind: torch.dtype) -> bool:
    """Whether the card's matrix units multiply this kind at more than the rate of fp16, and our kernels run there."""
    if card.kind is CardClass.TURING:
        return False
    return card.kind is not CardClass.TCGEN05 if kind == torch.int8 else card.capability >= (8, 9)


def uses_eight_bit_kernels(q: Tensor) -> bool:
    """Whether kernels multiply `q` where it lies. Elsewhere the plain PyTorch reference runs."""
    card = card_of(q)
    return card is not None and HAS_TRITON and q.numel() > 0 and serves(card, q.dtype)


def writes_eight_bits(x: Tensor, kind: torch.dtype) -> bool:
    """Whether kernels turn `x`, of any floating type, into this kind where it lies."""
    card = card_of(x)
    return card is not None and HAS_TRITON and x.numel() > 0 and serves(card, kind)


def reads_any_type(x: Tensor) -> bool:
    """Whether a kernel that only reads bytes runs where `x` lies."""
    card = card_of(x)
    return INTERPRETED or (HAS_TRITON and card is not None and card.capability >= FIRST_CAPABILITY)


def runs_kernels(x: Tensor) -> bool:
    """Whether a Triton kernel can be launched on this tensor: on a GPU, or on any device under the interpreter."""
    return card_of(x) is not None or INTERPRETED


def is_hopper(x: Tensor) -> bool:
    """Compute capability 9, which has warpgroup matrix products (wgmma). Newer generations dropped them."""
    card = card_of(x)
    return card is not None and card.kind is CardClass.WGMMA


def multiplies_by_warp(x: Tensor) -> bool:
    """Whether accumulators lie in the registers of one warp, so that wide tiles do not fit."""
    card = card_of(x)
    return card is not None and card.kind is CardClass.MMA


def runs_tma_kernels(x: Tensor) -> bool:
    """Whether our kernels that copy whole tiles by descriptor (TMA) run. Newer GPUs have TMA, but are untested."""
    return INTERPRETED or is_hopper(x)


def overlaps_launches(x: Tensor) -> bool:
    """Whether a kernel may start before the previous one ends, and wait for its results (programmatic launch)."""
    card = card_of(x)
    return card is not None and card.capability >= (9, 0)


def multiprocessors(x: Tensor) -> int:
    """How many multiprocessors share the work."""
    return kernel_card(x).multiprocessors
