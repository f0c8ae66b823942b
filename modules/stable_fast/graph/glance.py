"""A quick look at whether anything in a module may have changed: milliseconds for thousands of parts.

It compares what Python holds now with copies of it, by identity first, inside of Python's own loops. If it finds a
difference, `structure_of` has to tell what it means. A number that is replaced by an equal one of another type is the
same to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import is_dataclass
from itertools import chain
from operator import attrgetter, eq, is_
from typing import Any

from torch import Tensor, nn

from modules.stable_fast.graph.fingerprint import APART, ForwardFront, fact_of

_HELD = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_DICTS = (dict, OrderedDict)  # whose comparison is Python's
_DEPTH = 8  # as deep as `fact_of` looks
_PLACE = (Tensor.data_ptr, Tensor.size, Tensor.stride, attrgetter("dtype"))


class Glance:
    """A module as it is now."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = list(module.modules())
        self._types = list(map(type, self._parts))
        self._forwards = [kind.forward for kind in self._types]
        self._dicts: list[dict[Any, Any]] = []
        self._lists: list[list[Any]] = []
        self._others: list[tuple[Any, Any]] = []  # containers of other kinds, with what they were
        self._weights = [own[name] for own in map(vars, self._parts) for name in ("_parameters", "_buffers")]
        for part in self._parts:
            own = vars(part)
            self._dicts += [own, *(own[name] for name in _HELD)]
            for name, value in own.items():
                if name not in APART:
                    self._add(value, _DEPTH)
        self._empty = [each for each in (*self._dicts, *self._lists) if not each]  # most are
        self._dicts = [each for each in self._dicts if each]
        self._lists = [each for each in self._lists if each]
        self._dicts_then = [dict(each) for each in self._dicts]
        self._lists_then = [list(each) for each in self._lists]
        self._then = self._tensors()
        self._places = self._places_now()

    def same_places(self) -> bool:
        """Whether the weights are the same tensors in the same memory, so that they can be read."""
        now = self._tensors()
        are_same = len(now) == len(self._then) and all(map(is_, now, self._then))
        return are_same and self._places_now() == self._places

    def same_parts(self) -> bool:
        """Whether all parts and attributes are the same, but for the contents of weights."""
        try:
            return (
                not any(self._empty)
                and all(map(eq, self._dicts, self._dicts_then))
                and all(map(eq, self._lists, self._lists_then))
                and list(map(type, self._parts)) == self._types
                and [kind.forward for kind in self._types] == self._forwards
                and all(fact_of(value) == then for value, then in self._others)
            )
        except (RuntimeError, TypeError, ValueError):  # an array or tensor was replaced, and cannot be compared
            return False

    def _tensors(self) -> list[Tensor]:
        values = chain.from_iterable(map(dict.values, self._weights))
        return [tensor for tensor in values if tensor is not None]

    def _places_now(self) -> list[Any]:
        return [list(map(fact, self._then)) for fact in _PLACE]

    def _add(self, value: Any, depth: int) -> None:
        """Remembers the containers and objects in a value that `fact_of` looks into."""
        if depth < 0:
            return
        inner: Any = ()
        if type(value) in _DICTS:
            self._dicts.append(value)
            inner = chain.from_iterable(value.items())
        elif type(value) is list:
            self._lists.append(value)
            inner = value
        elif isinstance(value, tuple):
            inner = value
        elif isinstance(value, (list, Mapping)) or (is_dataclass(value) and not isinstance(value, type)):
            self._others.append((value, fact_of(value)))
        elif callable(value) and hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module, ForwardFront)):
            self._dicts.append(vars(value))
            inner = vars(value).values()
        for each in inner:
            self._add(each, depth - 1)
