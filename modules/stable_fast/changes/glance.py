"""A quick look at whether anything in a module may have changed: a millisecond or two for thousands of parts.

The objects that the module holds are compared by identity with those of an earlier moment, in loops that run in C.
Whatever could change inside (lists, dicts, objects that are called) is compared item by item. Attributes may equal
their old values and still be other objects, so after a difference `structure_of` has to tell what it means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.changes.fingerprint import APART, ForwardFront, fact_of, has_state

_SHALLOW = ("_parameters", "_buffers", "_modules")  # dicts of every module, compared item by item
_OWN = attrgetter("__dict__")  # like `vars`, in half the time
_PLACE = (Tensor.data_ptr, attrgetter("shape"), Tensor.stride, attrgetter("dtype"))
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
        owns = list(map(_OWN, self._parts))
        self._lengths = list(map(len, owns))
        self._groups = _groups(self._parts)
        self._values = list(self._all_values())
        inside = _Inside()
        for own in owns:
            inside.dicts += [own[name] for name in _SHALLOW if name in own]
            for name, value in own.items():
                if name not in APART:
                    inside.add(value)
        self._empty = [items for items in inside.dicts if not items]
        self._dicts = [items for items in inside.dicts if items]
        self._lists, self._objects, self._odd = inside.lists, inside.objects, inside.odd
        self._facts = list(map(fact_of, self._odd))
        dicts = self._all_dicts()
        self._weights = [*dict.fromkeys((*module.parameters(), *module.buffers()))]
        self._places = self._places_now()
        self._dict_lengths, self._dict_items = list(map(len, dicts)), list(_items(dicts))
        self._list_lengths, self._list_items = list(map(len, self._lists)), list(chain.from_iterable(self._lists))

    def same_places(self) -> bool:
        """Whether the weights of then lie in the same memory in the same form, so that they can be read."""
        return self._places_now() == self._places

    def same_parts(self) -> bool:
        """Whether the module holds the very same objects, weights included."""
        if list(map(type, self._parts)) != self._classes or list(map(len, map(_OWN, self._parts))) != self._lengths:
            return False
        try:  # with as many names as before, none is new unless one is missing
            if not _are_same(self._values, self._all_values()):
                return False
        except KeyError:
            return False
        return (
            all(kind.forward is forward for kind, forward in self._forwards)
            and not any(self._empty)
            and self._insides_hold()
        )

    def _insides_hold(self) -> bool:
        dicts = self._all_dicts()
        return (
            list(map(len, dicts)) == self._dict_lengths
            and list(map(len, self._lists)) == self._list_lengths
            and _are_same(self._dict_items, _items(dicts))
            and _are_same(self._list_items, chain.from_iterable(self._lists))
            and list(map(fact_of, self._odd)) == self._facts
        )

    def _places_now(self) -> list[Any]:
        return [list(map(fact, self._weights)) for fact in _PLACE]

    def _all_values(self) -> Iterable[Any]:
        tuples = [map(get, map(_OWN, parts)) for get, parts in self._groups]
        return chain.from_iterable(chain.from_iterable(tuples))

    def _all_dicts(self) -> list[dict[Any, Any]]:
        return [*self._dicts, *map(vars, self._objects)]


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


def _groups(parts: Iterable[nn.Module]) -> list[tuple[itemgetter[Any], list[nn.Module]]]:
    """Modules with the same attributes, and what gets those that count from their dicts."""
    groups: dict[tuple[str, ...], list[nn.Module]] = defaultdict(list)
    for part in parts:
        groups[tuple(name for name in vars(part) if name not in APART or name in _SHALLOW)].append(part)
    return [(itemgetter(*names), group) for names, group in groups.items()]


def _items(dicts: list[dict[Any, Any]]) -> Iterable[Any]:
    """All keys, then all values."""
    return chain(chain.from_iterable(dicts), chain.from_iterable(map(dict.values, dicts)))


def _are_same(kept: list[Any], found: Iterable[Any]) -> bool:
    """Whether as many objects are the same ones. Never `==`, which may run anything."""
    return all(map(is_, kept, found))
