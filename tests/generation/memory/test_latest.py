"""The latest results are made once, and the least recently used one is dropped."""

from __future__ import annotations

import pytest

from modules.generation.memory.latest import Latest


def test_a_kept_result_is_not_made_again_and_the_least_recently_used_is_dropped() -> None:
    made: list[str] = []
    latest: Latest[str] = Latest(2)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert latest.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    assert made == ["a", "b", "c", "b"]
    latest.clear()
    latest.get("b", lambda: made.append("again") or "B")
    assert made[-1] == "again"


def test_nothing_is_kept_of_a_failure() -> None:
    latest: Latest[int] = Latest(2)
    with pytest.raises(ZeroDivisionError):
        latest.get("a", lambda: 1 // 0)
    assert latest.get("a", lambda: 1) == 1
