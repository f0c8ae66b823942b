"""Tests that Repeat goes on only after a finished request, and says so where the request's error is."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ui.events.repeating import Repeating


def after(state: str, *updates: dict[str, Any], repeat: bool = True) -> list[dict[str, Any]]:
    """Returns what follows the request's own `updates` when it has ended in this state; "": it was refused."""

    def generate(_: object, *, has_previews: bool) -> Iterator[dict[str, Any]]:
        yield from updates

    tasks = {"1": SimpleNamespace(state=state)} if state else {}
    handlers: Any = SimpleNamespace(generate=generate, queue=SimpleNamespace(find=tasks.get))
    return list(Repeating(handlers).generate({}, repeat, False))[len(updates) :]


def test_a_finished_request_lets_repeat_go_on() -> None:
    assert after("done", {"task": "1"}, {"message": ""}) == []


def test_cancel_stops_repeat_without_a_message() -> None:
    assert after("cancelled", {"task": "1", "message": ""}, {"stage": "Cancelled"}) == [{"repeat": False}]


@pytest.mark.parametrize(("state", "place"), [("failed", "message"), ("", "control_message")])
def test_an_error_stops_repeat_and_stays_beside_the_message(state: str, place: str) -> None:
    updates = {"task": "1", "message": ""}, {"message": "", place: "<p>No memory.</p>"}
    off, said = after(state, *updates)
    assert off == {"repeat": False} and set(said) == {place}
    assert said[place].startswith("<p>No memory.</p>") and "Repeat stopped." in said[place]


def test_nothing_is_said_of_repeat_where_it_was_off() -> None:
    assert after("failed", {"task": "1"}, {"message": "No memory."}, repeat=False) == [{"repeat": False}]
