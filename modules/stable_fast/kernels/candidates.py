"""The implementations of an op that are candidates on a card."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.stable_fast.kernels.devices import CardClass

POSITION = re.compile(r"(cublaslt|cublaslt_patches|cudnn_graph)_([2-9]|\d\d+)")

Implementations = Mapping[str, Callable[..., Any]]


def is_position(name: str) -> bool:
    """Whether it names a position in a library's list of suggestions, other than the first.

    On another card, or with other sums, another algorithm has that position.
    """
    return POSITION.fullmatch(name) is not None


@dataclass(frozen=True)
class Candidates:
    """Implementations by what they need of a card: nothing, Triton's matrix products, or Hopper's."""

    libraries: Implementations
    tiles: Implementations = field(default_factory=dict[str, Callable[..., Any]])
    hopper: Implementations = field(default_factory=dict[str, Callable[..., Any]])

    def on(self, card: CardClass, *, suits_hopper: bool = True) -> dict[str, Callable[..., Any]]:
        """Hopper's replace the plain tiles there, for operands that suit them."""
        if card is CardClass.TURING:
            return dict(self.libraries)
        special = card is CardClass.WGMMA and suits_hopper
        return {**self.libraries, **(self.hopper if special else self.tiles)}
