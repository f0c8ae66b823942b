"""Lets a GPU pass for one of another compute capability, to measure what kernels such cards would choose.

Only the choice changes: the kernels run on the GPU that is there, and Triton compiles them for it. So what is measured
is a stand-in. cuDNN's attention is left out of it, since its kernels for the real GPU would not run on the other card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.attention.attention_packed import CANDIDATES
from modules.stable_fast.kernels.candidates import Implementations
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey
from modules.stable_fast.kernels.devices import Card

LIBRARIES = ("cublas", "cudnn")  # so begin the names of what they run
Capability = tuple[int, int]


def capability(word: str) -> Capability:
    """Reads a capability such as 8.9. Raises ValueError for anything else."""
    major, _, minor = word.partition(".")
    return int(major), int(minor)


@contextmanager
def said_to_be(said: Capability | None) -> Iterator[None]:
    """Inside, every GPU passes for one of this capability with as many multiprocessors; None changes nothing."""
    if said is None:
        yield
        return
    real = devices.card_at
    others = {name: call for name, call in CANDIDATES.libraries.items() if name != "cudnn"}
    with (
        patch.object(devices, "card_at", lambda number: Card(said, real(number).multiprocessors)),
        patch.dict(CANDIDATES.libraries, others, clear=True),
    ):
        yield


@contextmanager
def without_libraries() -> Iterator[None]:
    """Inside, convolutions and products run by our kernels alone.

    cuBLAS and cuDNN see the real GPU and use its own instructions, so a card that is only said to be another gets
    products from them that the other card cannot do.
    """
    pick = CHOICES.pick

    def ours(op: str, key: ChoiceKey, offered: Implementations, default: str, args: tuple[Any, ...]) -> str:
        left = {name: call for name, call in offered.items() if not name.startswith(LIBRARIES)} or offered
        return pick(op, key, left, default if default in left else next(iter(left)), args)

    with patch.object(CHOICES, "pick", ours):
        yield
