"""Represents an open model file, and checks that a network can use its tensors."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted


@dataclass(frozen=True)
class Weights:
    """A file's contents. `drop_pages` frees the pages read so far; call it only before writing to any tensor."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    drop_pages: Callable[[], None]


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Puts the file's name in front of errors raised by code that has only the file's contents."""
    try:
        yield
    except ModelFileError as error:
        message = str(error)
        raise (error if path.name in message else ModelFileError(f"{path.name}: {message}")) from error.__cause__


def holds_weights(tensor: Tensor) -> bool:
    """Returns False for counters, flags and masks, and for tensors of unsupported types (which have no values)."""
    return tensor.is_floating_point() and not tensor.is_meta and tensor.layout == torch.strided


def require_weights(name: str, tensor: Tensor) -> None:
    """Raises ModelFileError if a tensor that a network needs does not contain weights."""
    if not holds_weights(tensor):
        kind = "an unsupported type" if tensor.is_meta else f"the type {type_of(tensor)}, which holds no weights"
        raise ModelFileError(f"{quoted(name)} has {kind}; use another version of this file.")


def type_of(tensor: Tensor) -> str:
    return str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")


def same_but_for_ones(shape: torch.Size, wanted: torch.Size) -> bool:
    """Returns True if two shapes differ at most by trailing dimensions of 1, like matrices and 1x1 convolutions."""
    return shape == wanted or _without_ones(shape) == _without_ones(wanted)


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)
