"""Notices that a network changed, however it was changed: its parts, its attributes, and the contents of its weights.

Versions of tensors do not tell: `p.data.add_()` and the merge of a LoRA leave them as they are. So each look reads all
weights once and sums their bits. That costs as much as reading them once, so it belongs before a picture, not a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.graph.adapters import is_lora, strengths_of
from modules.stable_fast.graph.fingerprint import Structure, structure_of

# Whole numbers as wide as the elements of a tensor, by bytes.
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Change:
    """`rebuilt`: parts, attributes or addresses differ. `weights`: names of weights with other contents."""

    rebuilt: bool
    weights: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Look:
    structure: Structure
    places: Mapping[str, tuple[Any, ...]]
    contents: Mapping[str, object]


class Watch:
    """Compares a module with what it was at the last look. The first look is at construction."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._last = _look(module)

    def look(self) -> Change:
        """What changed since the last look."""
        before, self._last = self._last, _look(self._module)
        if (before.structure, before.places) != (self._last.structure, self._last.places):
            return Change(rebuilt=True)
        contents = before.contents
        return Change(rebuilt=False, weights=frozenset(k for k, v in self._last.contents.items() if contents[k] != v))


def _look(module: nn.Module) -> _Look:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    places = {
        name: (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        for name, tensor in tensors.items()
    }
    sums = checksums(tensors)
    contents = {name: (sums[name], 0 if x.is_inference() else x._version) for name, x in tensors.items()}
    return _Look(structure_of(module), places, {**contents, **_strengths(module)})


def _strengths(module: nn.Module) -> dict[str, float]:
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, part in module.named_modules()
        if is_lora(part)
        for name, value in strengths_of(part).items()
    }


@torch.no_grad()
def checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sum of each tensor's bits, taken as whole numbers. Each device is waited for once."""
    sums: dict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        sums[tensor.device][name] = _sum_of_bits(tensor)
    return {
        name: total
        for on_device in sums.values()
        for name, total in zip(on_device, torch.stack(list(on_device.values())).tolist(), strict=True)
    }


def _sum_of_bits(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(_WHOLE[real.element_size()]).sum(dtype=torch.int64)
