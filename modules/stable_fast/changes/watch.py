"""Notices that a network changed, however it was changed: its parts, its attributes, and the contents of its weights.

A look costs two milliseconds or so of the CPU's time for a large network, and meanwhile the GPU reads all weights once.
So it belongs before a picture, not a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from modules.stable_fast.changes.contents import Contents, places_of
from modules.stable_fast.changes.parts import Parts
from modules.stable_fast.graph.adapters import is_lora, strengths_of
from modules.stable_fast.graph.fingerprint import structure_of


@dataclass(frozen=True)
class Change:
    """`rebuilt`: parts, attributes or addresses differ. `weights`: names of weights with other contents."""

    rebuilt: bool
    weights: frozenset[str] = frozenset()


class Watch:
    """Compares a module with what it was at the last look. The first look is at construction."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._note()

    def _note(self) -> None:
        self._parts = Parts(self._module)
        self._structure = structure_of(self._module)
        self._strengths = _strengths(self._module)
        self._weights = weights_of(self._module)
        self._contents = Contents(self._weights)

    def look(self, *, reads_weights: bool = True) -> Change:
        """What changed since the last look.

        Without `reads_weights`, weights that were written past their versions are left to a later look.
        """
        if self._contents.moved():
            self._note()
            return Change(rebuilt=True)
        if reads_weights:
            self._contents.start()
        is_same = self._parts.hold()  # meanwhile, the GPU reads
        changed = self._contents.by_version() | (self._contents.finish() if reads_weights else set[str]())
        return Change(rebuilt=False, weights=frozenset(changed)) if is_same else self._compare(changed)

    def _compare(self, changed: set[str]) -> Change:
        """Compares by value what is no longer the same by identity. `changed`: weights known to differ."""
        structure, strengths, weights = self._structure, self._strengths, self._weights
        places = _named_places(weights)
        self._note()
        if structure != self._structure or places != _named_places(self._weights):
            return Change(rebuilt=True)
        changed |= {name for name, tensor in self._weights.items() if tensor is not weights[name]}
        changed |= {name for name, value in self._strengths.items() if strengths.get(name) != value}
        return Change(rebuilt=False, weights=frozenset(changed))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, by all of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _named_places(weights: dict[str, Tensor]) -> tuple[list[str], object]:
    return list(weights), places_of(weights.values())


def _strengths(module: nn.Module) -> dict[str, float]:
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, part in module.named_modules()
        if is_lora(part)
        for name, value in strengths_of(part).items()
    }
