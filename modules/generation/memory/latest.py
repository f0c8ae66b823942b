"""Keeps the latest results of something slow, such as encoded prompts, by everything that determines them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Latest(Generic[Result]):
    """At most `most` results by key; the least recently used is dropped first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Result] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """Returns the result kept under `key`, or else makes it and keeps it."""
        (result,) = self.get_all([key], lambda _: [make()])
        return result

    def get_all(self, keys: Sequence[Hashable], make: Callable[[Sequence[int]], Sequence[Result]]) -> list[Result]:
        """Returns the results kept under `keys`. Makes those that are missing all at once, and keeps them.

        `make` takes their places in `keys`. A key that occurs more than once is made once.
        """
        missing = {key: place for place, key in enumerate(keys) if key not in self._kept}
        if missing:
            self._kept |= zip(missing, make(list(missing.values())), strict=True)
        results = [self._kept[key] for key in keys]
        for key in keys:
            self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return results

    def clear(self) -> None:
        self._kept.clear()
