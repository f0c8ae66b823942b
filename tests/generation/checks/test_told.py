"""Settings without effect are told, and others are not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from modules.generation.checks.told import tell_overdone, tell_refiner
from modules.generation.options import GenerationOptions, HiresOptions, LoraChoice


@pytest.mark.parametrize(
    ("sampler", "cfg", "lines"), [("euler_cfg_pp", 7.0, 1), ("euler_cfg_pp", 1.0, 0), ("euler", 7.0, 0)]
)
def test_a_cfg_too_high_for_the_sampler_is_told(
    caplog: pytest.LogCaptureFixture, sampler: str, cfg: float, lines: int
) -> None:
    with caplog.at_level(logging.WARNING):
        tell_overdone(GenerationOptions(prompt="x", sampler=sampler, cfg=cfg))
    assert len(caplog.records) == lines


@pytest.mark.parametrize(
    ("changes", "steps", "told"),
    [
        ({}, 20, ""),
        ({"hires": HiresOptions()}, 20, ""),
        ({}, 4, "With the start 0.8, the refiner makes none of the 4 steps"),
        ({"refiner_start": 1.0}, 20, "With the start 1, the refiner makes none of the 20 steps"),
        ({"loras": (LoraChoice(name="x"),)}, 20, "the refiner makes its steps without them"),
    ],
)
def test_what_a_refiner_does_not_do_is_told(
    caplog: pytest.LogCaptureFixture, changes: dict[str, Any], steps: int, told: str
) -> None:
    with caplog.at_level(logging.WARNING):
        tell_refiner(GenerationOptions(prompt="x", refiner="r", **changes).resolved(1024), steps)
    assert bool(caplog.text) == bool(told) and told in caplog.text
