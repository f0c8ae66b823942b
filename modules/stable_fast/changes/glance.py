"""A quick look at whether anything in a module may have changed: about a millisecond for thousands of parts.

The objects that the module holds are compared by identity with those of an earlier moment, in loops that run in C.
Whatever could change inside (lists, dicts, objects that are called) is looked at, too. Attributes may equal their old
values and still be other objects, so after a difference `structure_of` has to tell what it means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.changes.dicts import Dicts, are_same
from modules.stable_fast.changes.fingerprint import APART, ForwardFront, fact_of, has_state
from modules.stable_fast.changes.forms import Forms

_SHALLOW = ("_parameters", "_buffers", "_modules")  # dicts of every module that count like its attributes
_IGNORED = APART - {*_SHALLOW}
_OWN = attrgetter("__dict__")  # like `vars`, in half the time
# What cannot change while it is the same object, or is watched elsewhere.
_ATOMS = {type(None), bool, int, float, str, bytes, complex, torch.dtype, torch.device, torch.Size}


class Glance:
    """A module as it is now, apart from the contents of its weights.

    All objects are kept alive, so that no later object reuses an address.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [part for _, part in module.named_modules()]
        self._classes = list(map(type, self._parts))
        self._forwards = [(kind, kind.forward) for kind in dict.fromkeys(self._classes)]
        inside = _Inside()
        for own in map(_OWN, self._parts):
            inside.dicts += [own[name] for name in _SHALLOW if name in own]
            for name, value in own.items():
                if name not in APART:
                    inside.add(value)
        self._holders = [*self._parts, *inside.objects]
        self._attributes = list(map(_OWN, self._holders))
        own, others = self._attributes[: len(self._parts)], self._attributes[len(self._parts) :]
        self._own, self._inside = Dicts(own, ignored=_IGNORED), Dicts([*inside.dicts, *others])
        self._lists, self._odd = inside.lists, inside.odd
        self._list_lengths, self._list_items = self._lengths(), self._items()
        self._facts = list(map(fact_of, self._odd))
        self._forms = Forms([*dict.fromkeys((*module.parameters(), *module.buffers()))])

    def same_places(self) -> bool:
        """Whether the weights of then lie in the same memory in the same form, so that they can be read."""
        return self._forms.are_same()

    def same_parts(self) -> bool:
        """Whether the module holds the very same objects, weights included."""
        return (
            list(map(type, self._parts)) == self._classes
            and all(kind.forward is forward for kind, forward in self._forwards)
            and are_same(self._attributes, list(map(_OWN, self._holders)))
            and self._own.are_same()
            and self._inside.are_same()
            and self._lengths() == self._list_lengths
            and are_same(self._list_items, self._items())
            and list(map(fact_of, self._odd)) == self._facts
        )

    def _lengths(self) -> list[int]:
        return list(map(len, self._lists))

    def _items(self) -> list[Any]:
        return list(chain.from_iterable(self._lists))


class _Inside:
    """Collects what can change inside values, however deep, each of it once."""

    def __init__(self) -> None:
        self.dicts: list[dict[Any, Any]] = []
        self.lists: list[list[Any]] = []
        self.objects: list[Any] = []  # their attributes count
        self.odd: list[Any] = []  # described anew at each look
        self._seen: dict[int, Any] = {}

    def add(self, value: Any) -> None:
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if type(value) not in _ATOMS and id(value) not in self._seen:
                self._seen[id(value)] = value
                waiting += self._insides_of(value)

    def _insides_of(self, value: Any) -> Iterable[Any]:
        if isinstance(value, (bool, int, float, str, Tensor, nn.Module, ForwardFront, type)):
            return ()
        if isinstance(value, (tuple, list)):
            if isinstance(value, list):
                self.lists.append(value)
            return value
        if isinstance(value, dict):
            self.dicts.append(value)
            return [item for pair in value.items() for item in pair]
        if isinstance(value, Mapping) or _hides_fields(value):
            self.odd.append(value)
            return ()
        if has_state(value) or is_dataclass(value):
            self.objects.append(value)
            return vars(value).values()
        return ()


def _hides_fields(value: Any) -> bool:
    """Whether a dataclass keeps fields elsewhere than among its attributes, such as in slots."""
    return is_dataclass(value) and any(item.name not in getattr(value, "__dict__", ()) for item in fields(value))
