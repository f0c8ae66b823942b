"""Registers an op under torch.ops.lightdiffusion and picks, per call, which of its implementations runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.stable_fast.kernels._triton import HAS_TRITON, INTERPRETED

NAMESPACE = "lightdiffusion"
# Kept alive by this module: a Library unregisters its ops when collected.
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")

Implementations = Mapping[str, Callable[..., Any]]
Key = tuple[Any, ...]


class Unsupported(Exception):
    """An implementation cannot serve this shape on this machine; the tuner passes over it."""


class Tuner(Protocol):
    """Times the implementations on the arguments at hand and returns the name of the fastest."""

    def __call__(
        self, op: str, key: Key, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str: ...


def _capturing() -> bool:
    """Nothing can be timed while a graph records."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class Choices:
    """Which implementation serves each (op, key): filled from disk or by a tuner, and a record of what was used."""

    def __init__(self) -> None:
        self.chosen: dict[tuple[str, Key], str] = {}
        self.used: dict[tuple[str, Key], str] = {}
        self.tuner: Tuner | None = None

    def pick(self, op: str, key: Key, implementations: Implementations, default: str, args: tuple[Any, ...]) -> str:
        entry = (op, key)
        name = self.chosen.get(entry)
        if name not in implementations:  # not tuned, or a name from an older version
            name = default
            if self.tuner is not None and not _capturing():
                name = self.tuner(op, key, implementations, default, args)
                self.chosen[entry] = name
        self.used[entry] = name
        return name


# Ops are called through torch.ops without an object to carry the choice, and GPU and library versions are fixed for a
# process: so there is one table per process. tuning.py fills it; nothing else writes to it.
CHOICES = Choices()


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define `lightdiffusion::<schema>`, run by `implementation` on every device, shaped by `fake` when traced."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)


@cache
def _capability(device_index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device_index)


@cache
def _multiprocessors(device_index: int) -> int:
    return torch.cuda.get_device_properties(device_index).multi_processor_count


def uses_kernels(x: Tensor) -> bool:
    """True where the Triton, cuDNN and cuBLAS paths apply; elsewhere the plain PyTorch reference runs."""
    if not (x.is_cuda and HAS_TRITON):
        return False
    capability = _capability(x.device.index)
    if x.dtype == torch.float16:
        return capability >= (7, 5)
    return x.dtype == torch.bfloat16 and capability >= (8, 0)


def runs_kernels(x: Tensor) -> bool:
    """True for tensors a Triton kernel can be launched on: CUDA, or any under the interpreter."""
    return x.is_cuda or INTERPRETED


def is_ampere_or_newer(x: Tensor) -> bool:
    """What flash attention and Triton's matrix products need."""
    return _capability(x.device.index) >= (8, 0)


def has_tma(x: Tensor) -> bool:
    """The tensor memory accelerator, of Hopper and later; the interpreter stands in for it."""
    return _capability(x.device.index) >= (9, 0) if x.is_cuda else INTERPRETED


def has_wgmma(x: Tensor) -> bool:
    """The matrix instructions of warp groups, which only Hopper has."""
    return x.is_cuda and _capability(x.device.index)[0] == 9


def multiprocessors(x: Tensor) -> int:
    """How many multiprocessors share the work; 8 stands in under the interpreter."""
    return _multiprocessors(x.device.index) if x.is_cuda else 8


def run(op: str, key: Key, implementations: Implementations, default: str, args: tuple[Any, ...]) -> Any:
    """Run the implementation chosen for this key."""
    return implementations[CHOICES.pick(op, key, implementations, default, args)](*args)


def channels_last(x: Tensor) -> Tensor:
    """`x` itself when already NHWC in memory, else a copy that is."""
    return x.contiguous(memory_format=torch.channels_last)


def pixels(x: Tensor) -> Tensor:
    """The [N * H * W, C] view of an NHWC image."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def image(rows: Tensor, like: Tensor) -> Tensor:
    """The NHWC image [N, C, H, W] over rows [N * H * W, C], with the batch and size of `like`."""
    return rows.view(like.shape[0], *like.shape[2:], -1).permute(0, 3, 1, 2)


def empty_channels_last(shape: tuple[Any, ...], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def dtype_key(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
