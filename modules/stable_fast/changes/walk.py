"""All modules of a network, without a walk over them at each picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import is_
from typing import Any

from torch import nn


class Walk:
    """Walks over a network anew only if a module in it was added, removed or replaced."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parts: list[nn.Module] = []
        self._leaves: list[dict[str, Any]] = []
        self._owners: list[dict[str, Any]] = []
        self._lengths: list[int] = []
        self._children: list[Any] = []

    def parts(self) -> Sequence[nn.Module]:
        """What `module.modules()` gives."""
        if not self._parts or not self._holds():
            self._parts = list(self._module.modules())
            every = [vars(part)["_modules"] for part in self._parts]
            self._leaves = [children for children in every if not children]
            self._owners = [children for children in every if children]
            self._lengths = list(map(len, self._owners))
            self._children = list(chain.from_iterable(map(dict.values, self._owners)))
        return self._parts

    def _holds(self) -> bool:
        return (
            not any(self._leaves)
            and list(map(len, self._owners)) == self._lengths
            and all(map(is_, self._children, chain.from_iterable(map(dict.values, self._owners))))
        )
