"""A lock for an object's methods, so that threads call them in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Turn:
    """A re-entrant lock. A copy of an object with such a lock gets a new lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()


class TakesTurns(Protocol):
    turn: Turn


Owner = TypeVar("Owner", bound=TakesTurns)


def in_turn(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """Allows only one thread at a time in all `in_turn` methods of an object."""

    @wraps(method)
    def run(self: Owner, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with self.turn:
            return method(self, *args, **kwargs)

    return run
