"""Tells whether the prompt of a call is the prompt of the call before, without reading it where that is possible."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class _Seen(NamedTuple):
    """A tensor as it was. Only inference tensors have no version, so their contents are kept."""

    tensor: weakref.ref[Tensor]
    version: int | None
    contents: Tensor | None

    def still_is(self, tensor: Tensor) -> bool:
        if self.contents is not None:
            return _alike(tensor, self.contents) and torch.equal(tensor, self.contents)
        return self.tensor() is tensor and not tensor.is_inference() and tensor._version == self.version


class SamePrompt:
    """Gives each prompt a number. A change through `.data` is not seen, since it leaves the version as it is."""

    def __init__(self) -> None:
        self._number = 0
        self._seen: dict[str, _Seen] = {}

    def number(self, prompt: Mapping[str, Tensor]) -> int:
        """The number of this prompt: that of the last call if it has the same tensors, unchanged; else a new one."""
        seen = self._seen
        if prompt.keys() != seen.keys() or not all(seen[name].still_is(tensor) for name, tensor in prompt.items()):
            self._number += 1
            self._seen = {name: _see(tensor) for name, tensor in prompt.items()}
        return self._number


def _see(tensor: Tensor) -> _Seen:
    if tensor.is_inference():
        return _Seen(weakref.ref(tensor), None, tensor.clone())
    return _Seen(weakref.ref(tensor), tensor._version, None)


def _alike(first: Tensor, second: Tensor) -> bool:
    return (first.shape, first.dtype, first.device) == (second.shape, second.dtype, second.device)
