"""Which implementation was chosen for which op and key, which ones ran, and which ones refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Implementations = Mapping[str, Callable[..., Any]]
# What the choice depends on within one op: sizes, options and the data type. Tuned tables keep it on disk.
ChoiceKey = tuple[Any, ...]


class Tuner(Protocol):
    """Times the implementations on the given arguments and returns the name of the fastest."""

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str: ...


def _capturing() -> bool:
    """Whether a CUDA graph is being recorded. Nothing can be timed meanwhile."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class ImplementationChoices:
    """The implementation for each (op, key). A table on disk or a tuner fills `chosen`; calls fill the rest."""

    def __init__(self) -> None:
        self.chosen: dict[tuple[str, ChoiceKey], str] = {}
        self.used: dict[tuple[str, ChoiceKey], str] = {}
        self.refused: set[tuple[str, ChoiceKey, str]] = set()
        self.tuner: Tuner | None = None

    def pick(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        """The name to run: the chosen one, else the tuner's choice, else the default."""
        name = self.chosen.get((op, key))
        # The name may be from another version, or belong to an implementation that has refused here before.
        if name is not None and name in implementations and (op, key, name) not in self.refused:
            return name
        if self.tuner is None or _capturing():
            return default
        name = self.tuner(op, key, implementations, default, args)
        self.chosen[op, key] = name
        return name

    def refuse(self, op: str, key: ChoiceKey, name: str, error: Exception) -> None:
        """Notes that `name` must not be asked again for this key. Warns once for each implementation."""
        told = any((op, name) == (other, refused) for other, _, refused in self.refused)
        log.log(logging.DEBUG if told else logging.WARNING, "%s runs without %s: %s", op, name, error)
        self.refused.add((op, key, name))


# One table for the process: ops are called through torch.ops, which has no place for an object that carries the choice,
# and the GPU and the library versions do not change while a process runs.
CHOICES = ImplementationChoices()


def dtype_key(x: Tensor) -> str:
    """The data type as it is written in a key, such as "float16"."""
    return str(x.dtype).removeprefix("torch.")
