"""The line under Generate says what Cancel will do, and what it has kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modules.core.progress import CancelToken
from ui.panels.render import finished_words, step_words


def request(**values: Any) -> Any:
    return SimpleNamespace(**{"cancel": CancelToken(), "pictures": [], "seconds": 2.0, "seed": None, **values})


@pytest.mark.parametrize(("rate", "words"), [(None, []), (2.0, []), (0.02, ["Cancel waits for a whole step"])])
def test_slow_steps_are_told_before_cancel_is_wanted(rate: float | None, words: list[str]) -> None:
    pace: Any = SimpleNamespace(rate=rate, step=0)
    assert step_words(request(), pace) == words


def test_a_first_step_that_takes_long_is_told() -> None:
    pace: Any = SimpleNamespace(rate=None, step=0)
    assert step_words(request(seconds=60.0), pace) == ["Cancel waits for a whole step"]


def test_a_cancelled_request_says_that_it_waits_for_its_step() -> None:
    queued = request()
    queued.cancel.cancel()
    pace: Any = SimpleNamespace(rate=None)
    assert step_words(queued, pace) == ["Cancelling after this step"]


@pytest.mark.parametrize(("pictures", "words"), [(0, "no picture was finished"), (2, "kept 2 pictures in 2.0 s")])
def test_a_cancelled_request_says_what_it_kept(pictures: int, words: str) -> None:
    assert finished_words(request(state="cancelled", pictures=["p"] * pictures)) in (
        f"Cancelled; {words}",
        f"Cancelled; {words}.",
    )
