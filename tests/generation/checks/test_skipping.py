"""Requests whose steps cannot be skipped are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from modules.core.errors import OptionsError
from modules.generation.checks.skipping import FEWEST_STEPS, check_skipping
from modules.generation.option_table import MOST_SKIPPED
from modules.generation.options import GenerationOptions, HiresOptions


def options(**changes: Any) -> GenerationOptions:
    return GenerationOptions(**{"prompt": "a cat", "stable_fast": "full", "stable_fast_skip": 1} | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 9}, "--stable-fast-skip 1 needs at least 10 steps, since pictures of fewer (9) change too much: "),
        ({"steps": 14, "stable_fast_skip": 2}, "needs at least 15 steps"),
        ({"hires": HiresOptions(steps=8)}, "HiresFix: --stable-fast-skip 1 needs at least 10 steps"),
        ({"sampler": "DPM adaptive"}, "DPM adaptive chooses its steps itself, so none can be skipped"),
        ({"hires": HiresOptions(sampler="dpm_fast")}, "HiresFix: DPM fast chooses its steps itself"),
    ],
)
def test_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionsError) as error:
        check_skipping(options(**changes))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{}, {"steps": 10}, {"steps": 4, "stable_fast_skip": 0}, {"steps": 4, "stable_fast": "off"}, {"sampler": "heun"}],
)
def test_allowed(changes: dict[str, Any]) -> None:
    check_skipping(options(**changes))


def test_every_number_has_a_floor() -> None:
    assert list(FEWEST_STEPS) == list(range(1, MOST_SKIPPED + 1))
    with pytest.raises(OptionsError, match="Stable-Fast skip 4 is out of range: choose a value from 0 to 3"):
        options(stable_fast_skip=4)
