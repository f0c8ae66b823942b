"""The implementations of an op that are candidates on a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.stable_fast.kernels.devices import CardClass

Implementations = Mapping[str, Callable[..., Any]]


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
