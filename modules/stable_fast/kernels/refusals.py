"""Lets an implementation refuse a call that it cannot serve, so that another one takes over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from modules.core.device import raise_if_broken
from modules.stable_fast.kernels.triton_import import TritonError

# Above this, the 32-bit offset of an element overflows. The margin is for a last tile that reaches past the end.
MOST_ELEMENTS = 2**31 - 2**16
MOST_GRID_ROWS = 65535  # programs along the second and third axis of a launch


class Unsupported(Exception):
    """An implementation cannot serve this shape on this machine, so the tuner skips that implementation."""


# A refusal is our own Unsupported, an error from Triton's compiler or launcher, an error from a library, or a folder
# that Triton cannot write to.
REFUSALS = (Unsupported, TritonError, RuntimeError, OSError)
# These are RuntimeErrors too, but they affect the whole process, so they are raised to the caller.
NO_REFUSALS = (torch.OutOfMemoryError, torch.AcceleratorError)


@contextmanager
def unsupported_on_error(library: str) -> Iterator[None]:
    """Turns the RuntimeError that a library raises for a refused shape into Unsupported.

    The shapes that a library supports depend on its version and on the GPU.
    """
    try:
        yield
    except NO_REFUSALS:
        raise
    except RuntimeError as error:
        raise_if_broken()
        raise Unsupported(f"{library} refuses: {error}") from error


def require_32_bit(*tensors: Tensor) -> None:
    """For kernels with 32-bit offsets: raises Unsupported if a tensor is too large."""
    for tensor in tensors:
        if tensor.numel() > MOST_ELEMENTS:
            raise Unsupported(f"{tuple(tensor.shape)} has more elements than a 32-bit offset can reach")
