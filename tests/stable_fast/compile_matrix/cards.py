"""Cards that kernels are compiled for, without one being there."""

from __future__ import annotations

from dataclasses import dataclass

from modules.stable_fast.kernels.devices import Card


@dataclass(frozen=True)
class AbsentCard:
    """A card, and the shared memory in bytes that one program may use there (CUDA C++ guide, compute capabilities)."""

    name: str
    card: Card
    shared: int

    @property
    def target(self) -> int:
        """The number that Triton knows the architecture by, such as 86."""
        major, minor = self.card.capability
        return 10 * major + minor


CARDS = {
    card.name: card
    for card in (
        AbsentCard("RTX 2080 Ti", Card((7, 5), 68), 64 << 10),
        AbsentCard("A100", Card((8, 0), 108), 163 << 10),
        AbsentCard("RTX 3060", Card((8, 6), 28), 99 << 10),
        AbsentCard("RTX 4090", Card((8, 9), 128), 99 << 10),
        AbsentCard("H200", Card((9, 0), 132), 227 << 10),
        AbsentCard("B200", Card((10, 0), 148), 227 << 10),
        AbsentCard("RTX 5090", Card((12, 0), 170), 99 << 10),
    )
}
