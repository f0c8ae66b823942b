"""Records which implementation was chosen for each op and key, which ones ran, and which ones refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Implementations = Mapping[str, Callable[..., Any]]
# The sizes, options and dtype that determine the choice for an op. Tuned tables on disk contain these keys.
ChoiceKey = tuple[Any, ...]


class Tuner(Protocol):
    """Times the implementations on the given arguments and returns the name of the fastest."""

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str: ...


def _capturing() -> bool:
    """Whether a CUDA graph is being recorded, which makes timing impossible."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class ImplementationChoices:
    """The implementation for each (op, key). `chosen` comes from a table on disk or a tuner, the rest from calls."""

    def __init__(self) -> None:
        self.chosen: dict[tuple[str, ChoiceKey], str] = {}
        self.used: dict[tuple[str, ChoiceKey], str] = {}
        self.refused: set[tuple[str, ChoiceKey, str]] = set()
        self.tuner: Tuner | None = None

    def pick(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        """The implementation to run: the chosen one, else the tuner's choice, else the default."""
        name = self.chosen.get((op, key))
        # The name may come from another version, or belong to an implementation that has refused here before.
        if name is not None and name in implementations and (op, key, name) not in self.refused:
            return name
        if self.tuner is None or _capturing():
            return default
        name = self.tuner(op, key, implementations, default, args)
        self.chosen[op, key] = name
        return name

    def refuse(self, op: str, key: ChoiceKey, name: str, error: Exception) -> None:
        """Records that `name` must not be tried again for this key. Warns once per implementation."""
        told = any((op, name) == (other, refused) for other, _, refused in self.refused)
        log.log(logging.DEBUG if told else logging.WARNING, "%s runs without %s: %s", op, name, error)
        self.refused.add((op, key, name))


# One table per process: calls through torch.ops cannot pass an object with the choices, and the GPU and library
# versions do not change while a process runs.
CHOICES = ImplementationChoices()


def dtype_key(x: Tensor) -> str:
    """The dtype as written in a key, such as "float16"."""
    return str(x.dtype).removeprefix("torch.")
