"""Notices tensors that hold the same rows several times, as pipelines make them for guidance: `torch.cat([x] * 2)`.

Networks then compute with these rows once, up to where the prompt comes in. Only what is certain counts: such a tensor
itself, its conversions and its products with a number, and channels joined to it that repeat as often. A tensor that
was written to since then is an ordinary one. So is one whose memory was given out past its version, such as by `.data`.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode,  # pyright: ignore[reportPrivateUsage]
)

JOINS = ("cat", "concat", "concatenate")
KEEPS = ("div", "true_divide", "mul", "multiply", "to", "half", "float", "bfloat16", "contiguous")  # rows as they are
# What lets a tensor be written to without another version, beside `.data`.
ESCAPES = ("numpy", "__array__", "__dlpack__", "data_ptr", "storage", "untyped_storage")
_DATA = Tensor.data
MOST_MARKS = 8  # the latest; a step makes two or three


class Mark(NamedTuple):
    tensor: weakref.ref[Tensor]
    version: int
    times: int


class RepeatedRows(TorchFunctionMode):
    """Sees each call of PyTorch in this thread, at a microsecond each."""

    def __init__(self) -> None:
        super().__init__()
        self._marks: deque[Mark] = deque(maxlen=MOST_MARKS)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if torch.compiler.is_compiling():
            return result
        name = getattr(func, "__name__", "")
        if self._marks and (name in ESCAPES or getattr(func, "__self__", None) is _DATA):
            self._forget(args[0])
        if name in JOINS or (self._marks and name in KEEPS):
            self._look(name, args, given, result)
        return result

    def _forget(self, tensor: Any) -> None:
        """Drops the marks of all tensors in the memory of this one, which may be a view of them."""
        memory = tensor.untyped_storage().data_ptr()
        alive = [(mark, mark.tensor()) for mark in self._marks]
        kept = (mark for mark, each in alive if each is not None and each.untyped_storage().data_ptr() != memory)
        self._marks = deque(kept, maxlen=MOST_MARKS)

    def _look(self, name: str, args: Sequence[Any], given: Mapping[str, Any], result: Any) -> None:
        if not isinstance(result, Tensor) or result.is_inference() or "out" in given:  # such have no version
            return
        times = self._times_of_join(args, given) if name in JOINS else self._times_of_kept(args, given)
        if times > 1:
            self._marks.append(Mark(weakref.ref(result), result._version, times))

    def _times_of_join(self, args: Sequence[Any], given: Mapping[str, Any]) -> int:
        tensors = args[0] if args else given.get("tensors", ())
        dim = args[1] if len(args) > 1 else given.get("dim", 0)
        if not isinstance(tensors, (list, tuple)) or not tensors or not isinstance(dim, int) or "axis" in given:
            return 1
        if dim == 0:
            return len(tensors) if all(tensor is tensors[0] for tensor in tensors) else 1
        counts = {self.times(tensor) for tensor in tensors}
        return counts.pop() if dim > 0 and len(counts) == 1 else 1

    def _times_of_kept(self, args: Sequence[Any], given: Mapping[str, Any]) -> int:
        others = [*args[1:], *given.values()]
        has_rows = any(isinstance(other, Tensor) and other.dim() for other in others)
        return 1 if has_rows or not args else self.times(args[0])

    def times(self, tensor: object) -> int:
        """How many times the rows of a tensor repeat, for certain."""
        for tensor_of, version, times in self._marks:
            if tensor_of() is tensor and isinstance(tensor, Tensor) and tensor._version == version:
                return times
        return 1


_CURRENT: ContextVar[RepeatedRows | None] = ContextVar("current", default=None)


@contextmanager
def noticing_repeated_rows() -> Iterator[None]:
    """Notices them in this thread, until the end."""
    with RepeatedRows() as seen:
        token = _CURRENT.set(seen)
        try:
            yield
        finally:
            _CURRENT.reset(token)


@contextmanager
def inside_a_network() -> Iterator[None]:
    """Sees no calls, since a network makes thousands, unless another mode of PyTorch began later and hides this one."""
    seen = _CURRENT.get()
    if seen is None or _get_current_function_mode() is not seen:
        yield
        return
    seen.__exit__(None, None, None)
    try:
        yield
    finally:
        seen.__enter__()


def times_repeated(tensor: Tensor) -> int:
    """How many times the rows of a tensor repeat, for certain."""
    seen = _CURRENT.get()
    return 1 if seen is None else seen.times(tensor)
