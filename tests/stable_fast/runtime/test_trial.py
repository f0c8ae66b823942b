"""On a CPU, sizes at which eager steps are faster go back to eager, and the status line says so; ties stay fused."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast import unet_runner as runner_module
from modules.stable_fast.runtime import trial as trial_module
from modules.stable_fast.runtime.trial import PAIRS, Trial
from tests import tiny
from tests.stable_fast.networks import inputs_for, latent

STEPS = PAIRS + 3


def run_trial(pairs: list[tuple[float, float]]) -> tuple[Trial, int]:
    """The trial, and how many pairs it took."""
    trial = Trial()
    for number, (fused, eager) in enumerate(pairs):
        if not trial.wants_eager(fused):
            return trial, number
        trial.add(fused, eager)
    return trial, len(pairs)


@pytest.mark.parametrize(
    ("pairs", "taken", "lost"),
    [
        ([(900.0, 1000.0)] * 9, 1, False),  # faster
        ([(1030.0, 1000.0)] * 9, 1, False),  # as fast, within what one step may differ by
        ([(1100.0, 1000.0)] * 9, PAIRS, True),  # slower each time
        ([(1800.0, 1000.0), (1010.0, 1000.0), (1800.0, 1000.0)], 2, False),  # other work took part of the first step
        ([(1100.0, 3000.0), (1100.0, 1000.0)], 1, False),  # the first pair decides for fused
        ([(1100.0, 1000.0)] * 4 + [(1100.0, 1090.0)], PAIRS, False),  # one eager step was as slow
        ([(99.0, 1.0)] * 9, 0, False),  # too short to matter
    ],
)
def test_a_trial_is_lost_only_if_eager_stays_ahead(pairs: list[tuple[float, float]], taken: int, lost: bool) -> None:
    trial, number = run_trial(pairs)
    assert (number, trial.over, trial.lost) == (taken, True, lost)


def test_a_trial_is_open_until_it_is_decided() -> None:
    trial, _ = run_trial([(1100.0, 1000.0)] * (PAIRS - 1))
    assert not trial.over and not trial.lost and trial.wants_eager(1100.0)


def test_a_size_goes_back_to_eager_where_that_is_faster_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    eager_ms = 0.0
    monkeypatch.setattr(trial_module, "SHORT_MS", 0.0)
    monkeypatch.setattr(runner_module, "milliseconds", lambda *_, calls: eager_ms)
    runner = StableFastRunner(tiny.unet(tiny.SD1_SHORT_UNET), StableFastConfig(level="fused"))
    counters = runner.report.counters
    with torch.inference_mode():
        runner.prepare(inputs_for(), [500.0])
        for _ in range(STEPS):
            runner.step(latent(), 500.0)
        assert counters.fused_steps == 1 + PAIRS  # the first step warms up
        assert counters.eager_steps == STEPS - 1 - PAIRS
        status = runner.report.status_line()
        assert "off instead of fused (here an eager step takes 0.0 ms, and a fused step" in status
        eager_ms = 1e9
        for _ in range(STEPS):
            runner.step(latent(1, 16, 24), 500.0)  # another size has a trial of its own
    assert counters.fused_steps == 1 + PAIRS + STEPS
    assert runner.report.status_line().startswith("Stable-Fast: fused,")
