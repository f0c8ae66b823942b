"""Notices that a network changed, however it was changed: its parts, its attributes, and the contents of its weights.

Each look reads all weights once and compares their checksums. That belongs before a picture, not a step. A GPU begins
to read first, and Python compares parts and attributes meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor, nn

from modules.stable_fast.changes.adapters import is_lora, strengths_of
from modules.stable_fast.changes.checksums import Checksums, finish
from modules.stable_fast.changes.fingerprint import Structure, structure_of
from modules.stable_fast.changes.glance import Glance


@dataclass(frozen=True)
class Change:
    """`rebuilt`: parts, attributes or addresses differ. `moved`: only addresses do, or dtypes.

    `weights`: names of weights with other contents.
    """

    rebuilt: bool
    weights: frozenset[str] = frozenset()
    moved: bool = False


@dataclass(frozen=True)
class _Look:
    structure: Structure
    places: Mapping[str, tuple[Any, ...]]


class Begun(NamedTuple):
    """A look that began: whether all objects are the same, and the sums that are being taken of the weights."""

    is_same: bool
    sums: list[Tensor] | None


class Watch:
    """Compares a module with what it was at the last look. The first look is at construction."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._begun: Begun | None = None
        self._start_over()

    def begin(self, *, reads_weights: bool = True) -> bool:
        """Begins a look, which `look` ends. Returns whether the module still holds the very same objects.

        Without `reads_weights`, weights that were written past their versions are left to a later look.
        """
        can_read = self._glance.same_places()
        started = self._sums.start() if can_read and reads_weights else None
        self._begun = Begun(can_read and self._glance.same_parts(), started)
        return self._begun.is_same

    def look(self, *, reads_weights: bool = True) -> Change:
        """What changed since the last look. Goes on from `begin` if that was called first."""
        if self._begun is None:
            self.begin(reads_weights=reads_weights)
        begun, self._begun = self._begun, None
        before, last, strengths = self._contents, self._last, self._strengths
        if begun is not None and begun.is_same:
            sums = before[0] if begun.sums is None else finish(begun.sums)
            is_read = begun.sums is not None and sums == before[0]  # versions would tell nothing more
            self._contents = before if is_read else self._read(sums)
            is_same = is_read or before == self._contents
            return Change(rebuilt=False, weights=frozenset() if is_same else self._differing(before))
        self._start_over()
        if last != self._last:
            return Change(rebuilt=True, moved=last.structure == self._last.structure)
        others = {name for name, value in self._strengths.items() if strengths[name] != value}
        return Change(rebuilt=False, weights=self._differing(before) | others)

    def _start_over(self) -> None:
        """A full look, which takes longer."""
        tensors, self._names = weights_of(self._module)
        self._last = _Look(structure_of(self._module), {name: _place(tensor) for name, tensor in tensors.items()})
        self._glance, self._sums = Glance(self._module), Checksums(tensors)
        self._versioned = [name for name in self._sums.names if not tensors[name].is_inference()]
        self._with_version = [tensors[name] for name in self._versioned]
        self._strengths = _strengths(self._module)
        self._contents = self._read(finish(self._sums.start()))

    def _read(self, sums: list[int]) -> tuple[list[int], list[int]]:
        """What can differ without other parts: checksums and versions."""
        return sums, list(map(attrgetter("_version"), self._with_version))

    def _differing(self, before: tuple[list[int], list[int]]) -> frozenset[str]:
        """The weights whose contents differ from those before."""
        named = zip((self._sums.names, self._versioned), before, self._contents, strict=True)
        return frozenset(
            name
            for names, first, second in named
            for first_name, a, b in zip(names, first, second, strict=True)
            if a != b
            for name in self._names[first_name]
        )


def weights_of(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Each parameter and buffer by its first name, and all names of each: tied weights have several."""
    first: dict[Tensor, str] = {}
    names: dict[str, list[str]] = defaultdict(list)
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            names[first.setdefault(tensor, name)].append(name)
    return {name: tensor for tensor, name in first.items()}, names


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _strengths(module: nn.Module) -> dict[str, float]:
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, part in module.named_modules()
        if is_lora(part)
        for name, value in strengths_of(part).items()
    }
