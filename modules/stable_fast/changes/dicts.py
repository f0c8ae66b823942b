"""Whether many dicts still hold the very same objects. Their versions tell that, by which PyTorch's own guards go.

Python, or a watcher of PyTorch, counts a dict's version up at each write of another object. So an unchanged dict takes
one number to see, however much it holds. One with another version is compared object by object.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import is_
from typing import Any

from torch._C._dynamo.guards import dict_version


class Dicts:
    """Dicts as they are now. Names in `ignored` do not count.

    The dicts and what they hold are kept alive, so that no later object reuses an address.
    """

    def __init__(self, dicts: Sequence[dict[Any, Any]], ignored: Collection[Any] = ()) -> None:
        self._ignored = ignored
        self._empty = [each for each in dicts if not each]
        # Subclasses may have an order of their own, which has no version.
        self._odd = [each for each in dicts if each and type(each) is not dict]
        self._plain = [each for each in dicts if each and type(each) is dict]
        self._versions = list(map(dict_version, self._plain))  # first, so that what is written meanwhile is seen later
        self._odd_held = list(map(self._held_by, self._odd))
        self._plain_held = list(map(self._held_by, self._plain))

    def are_same(self) -> bool:
        """Whether each holds the same objects under the same names in the same order. Never by `==`."""
        return not any(self._empty) and self._plain_are_same() and all(map(self._is_same, self._odd, self._odd_held))

    def _plain_are_same(self) -> bool:
        now = list(map(dict_version, self._plain))
        if now == self._versions:
            return True
        each = zip(self._plain, self._plain_held, self._versions, now, strict=True)
        is_same = all(self._is_same(found, held) for found, held, before, after in each if before != after)
        if is_same:
            self._versions = now
        return is_same

    def _is_same(self, found: dict[Any, Any], held: list[Any]) -> bool:
        return are_same(held, self._held_by(found))

    def _held_by(self, each: dict[Any, Any]) -> list[Any]:
        """All names, then all that they stand for."""
        if not self._ignored:
            return [*each, *each.values()]
        names = [name for name in each if name not in self._ignored]
        return [*names, *(each[name] for name in names)]


def are_same(kept: Sequence[Any], found: Sequence[Any]) -> bool:
    """Whether as many objects are the same ones. Never `==`, which may run anything."""
    return len(kept) == len(found) and all(map(is_, kept, found))
