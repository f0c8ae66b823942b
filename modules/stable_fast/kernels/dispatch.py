"""Registers an op under torch.ops.lightdiffusion and picks, per call, which of its implementations runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.core.device import raise_if_broken
from modules.stable_fast.kernels.triton_import import HAS_TRITON, INTERPRETED, TritonError

log = logging.getLogger(__name__)

NAMESPACE = "lightdiffusion"
# Kept alive by this module: a Library unregisters its ops when collected.
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")

Implementations = Mapping[str, Callable[..., Any]]
Key = tuple[Any, ...]


class Unsupported(Exception):
    """An implementation cannot serve this shape on this machine; the tuner passes over it."""


# How an implementation says no: itself, from Triton's compiler or launcher or the folder it cannot write to, or from a
# library. What is left of a CUDA error or of memory that ran out concerns the whole process and is passed on.
REFUSALS = (Unsupported, TritonError, RuntimeError, OSError)
NO_REFUSALS = (torch.OutOfMemoryError, torch.AcceleratorError)
# What serves a call that every other implementation asked has refused.
REFERENCE = "reference"
# Beyond, 32-bit offsets of a tensor's elements overflow, those of a last tile that reaches over its end included.
MOST_ELEMENTS = 2**31 - 2**16
MOST_GRID_ROWS = 65535  # programs along the second and third axis of a launch


@contextmanager
def unsupported_on_error(library: str) -> Iterator[None]:
    """Which shapes a library serves varies with its version and the GPU; it says so by a RuntimeError."""
    try:
        yield
    except NO_REFUSALS:
        raise
    except RuntimeError as error:
        raise_if_broken()
        raise Unsupported(f"{library} refuses: {error}") from error


def require_32_bit(*tensors: Tensor) -> None:
    """What every kernel asks for that computes offsets in 32 bits."""
    for tensor in tensors:
        if tensor.numel() > MOST_ELEMENTS:
            raise Unsupported(f"{tuple(tensor.shape)} has more elements than 32-bit offsets reach")


class Tuner(Protocol):
    """Times the implementations on the arguments at hand and returns the name of the fastest."""

    def __call__(
        self, op: str, key: Key, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str: ...


def _capturing() -> bool:
    """Nothing can be timed while a graph records."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class Choices:
    """Which implementation serves each (op, key): filled from disk or by a tuner; what was used, and what refused."""

    def __init__(self) -> None:
        self.chosen: dict[tuple[str, Key], str] = {}
        self.used: dict[tuple[str, Key], str] = {}
        self.refused: set[tuple[str, Key, str]] = set()
        self.tuner: Tuner | None = None

    def pick(self, op: str, key: Key, implementations: Implementations, default: str, args: tuple[Any, ...]) -> str:
        entry = (op, key)
        name = self.chosen.get(entry)
        # Not tuned, a name from another version, or one that has turned out not to work here.
        if name not in implementations or (*entry, name) in self.refused:
            name = default
            if self.tuner is not None and not _capturing():
                name = self.tuner(op, key, implementations, default, args)
                self.chosen[entry] = name
        return name

    def refuse(self, op: str, key: Key, name: str, error: Exception) -> None:
        """Not to be asked again for this key; told to the user once for each implementation."""
        told = any((op, name) == (other, refused) for other, _, refused in self.refused)
        log.log(logging.DEBUG if told else logging.WARNING, "%s runs without %s: %s", op, name, error)
        self.refused.add((op, key, name))


# Ops are called through torch.ops without an object to carry the choice, and GPU and library versions are fixed for a
# process: so there is one table per process. tuning.py fills it; `run` notes what was used and what refused.
CHOICES = Choices()


def on_its_device(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Triton, and libraries that are called directly, launch on the current device, which need not be that of `x`."""

    def call(x: Tensor, *others: Any) -> Any:
        if not x.is_cuda or x.device.index == torch.cuda.current_device():
            return implementation(x, *others)
        with torch.cuda.device(x.device.index):
            return implementation(x, *others)

    return call


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define `lightdiffusion::<schema>`, run by `implementation` on every device, shaped by `fake` when traced."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, on_its_device(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)


@cache
def _capability(device_index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device_index)


@cache
def _multiprocessors(device_index: int) -> int:
    return torch.cuda.get_device_properties(device_index).multi_processor_count


def uses_kernels(x: Tensor) -> bool:
    """True where the Triton, cuDNN and cuBLAS paths apply; elsewhere the plain PyTorch reference runs."""
    if not (x.is_cuda and HAS_TRITON) or torch.version.hip is not None or x.numel() == 0:
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


def is_hopper(x: Tensor) -> bool:
    """Compute capability 9: warpgroup matrix products (wgmma), which newer generations no longer have."""
    return x.is_cuda and _capability(x.device.index)[0] == 9


def runs_tma_kernels(x: Tensor) -> bool:
    """Where our kernels that copy whole tiles by descriptor (TMA) run: newer GPUs could, but none has been tried."""
    return INTERPRETED or is_hopper(x)


def overlaps_launches(x: Tensor) -> bool:
    """True where a kernel may start while the one before it ends and wait for its results (programmatic launch)."""
    return x.is_cuda and _capability(x.device.index) >= (9, 0)


def multiprocessors(x: Tensor) -> int:
    """How many multiprocessors share the work; 8 stands in under the interpreter."""
    return _multiprocessors(x.device.index) if x.is_cuda else 8


def run(
    op: str,
    key: Key,
    implementations: Implementations,
    default: str,
    args: tuple[Any, ...],
    reference: Callable[[], Any],
    choices: Choices = CHOICES,
) -> Any:
    """Run the implementation chosen for this key; where it refuses, the default, then plain PyTorch, which never does.

    A table of choices may have been made with other versions, and a default may meet a machine nobody has tried.
    """
    for name in (choices.pick(op, key, implementations, default, args), default):
        if (op, key, name) in choices.refused:
            continue
        choices.used[op, key] = name
        try:
            return implementations[name](*args)
        except NO_REFUSALS:
            raise
        except REFUSALS as error:
            raise_if_broken()
            choices.refuse(op, key, name, error)
    choices.used[op, key] = REFERENCE
    return reference()


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
