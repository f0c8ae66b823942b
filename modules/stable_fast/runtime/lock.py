"""Methods of one object that threads call in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Turn:
    """A lock that its holder may take again; a copy of an object that has one gets another."""

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
    method: Callable[Concatenate[Owner, Given], Result],
) -> Callable[Concatenate[Owner, Given], Result]:
    """The method, run while no other thread is in one of the same object that is `in_turn`."""

    @wraps(method)
    def run(self: Owner, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with self.turn:
            return method(self, *args, **kwargs)

    return run
