"""The latest results are made once, and the least recently used one is dropped."""

from __future__ import annotations

from collections.abc import Sequence

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


def test_what_is_missing_of_several_is_made_at_once_even_if_it_is_more_than_is_kept() -> None:
    made: list[list[str]] = []

    def make(keys: str) -> list[str]:
        def missing(places: Sequence[int]) -> list[str]:
            made.append([keys[place] for place in places])
            return [keys[place].upper() for place in places]

        return latest.get_all(keys, missing)

    latest: Latest[str] = Latest(2)
    assert make("ab") == ["A", "B"] and make("ba") == ["B", "A"] and make("acaca") == [*"ACACA"]
    assert make("abcd") == [*"ABCD"] and make("cd") == ["C", "D"]
    assert [sorted(keys) for keys in made] == [["a", "b"], ["c"], ["b", "d"]]


def test_nothing_is_kept_of_a_failure() -> None:
    latest: Latest[int] = Latest(2)
    with pytest.raises(ZeroDivisionError):
        latest.get("a", lambda: 1 // 0)
    assert latest.get("a", lambda: 1) == 1
