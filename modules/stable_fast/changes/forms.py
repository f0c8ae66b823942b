"""Whether tensors still have their shapes, strides, types and devices, and lie where they lay.

PyTorch's own guards compare everything but the address, in a tenth of the time that Python takes to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor
from torch._C._dynamo.guards import TensorGuards

_FACTS = (attrgetter("shape"), Tensor.stride, attrgetter("dtype"), attrgetter("device"))


class Forms:
    """Tensors, each of them once, as they are now."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._addresses, self._facts = self._addresses_now(), self._facts_now()
        self._guards = self._guards_now()

    def are_same(self) -> bool:
        """Whether each has its form and its address, so that a kernel that knows both may read it."""
        return (self._pass_guards() or self._facts_are_same()) and self._addresses_now() == self._addresses

    def _pass_guards(self) -> bool:
        return bool(self._guards.check(*self._tensors))

    def _facts_are_same(self) -> bool:
        """Looks closer: the guards see modes too, such as inference mode, which are no change."""
        if self._facts_now() != self._facts:
            return False
        self._guards = self._guards_now()
        return True

    def _addresses_now(self) -> list[int]:
        return list(map(Tensor.data_ptr, self._tensors))

    def _facts_now(self) -> list[list[Any]]:
        return [list(map(fact, self._tensors)) for fact in _FACTS]

    def _guards_now(self) -> Any:
        shapes, strides = (list(map(list, self._facts[which])) for which in (0, 1))
        of_any_type: Any = TensorGuards  # the stub lacks the tensors
        return of_any_type(*self._tensors, dynamic_dims_sizes=shapes, dynamic_dims_strides=strides)
