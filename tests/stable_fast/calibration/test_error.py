"""How far eight bits are from a checkpoint's own step: measured with the scales, kept beside them, and said."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from modules.generation.eager_runner import EagerRunner
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.stable_fast import unet_runner
from modules.stable_fast.calibration.error import step_error
from modules.stable_fast.precision import MOST_ERROR
from modules.stable_fast.store.cache import CACHE_VARIABLE
from tests import tiny
from tests.stable_fast.fake_eight_bits import with_outliers
from tests.stable_fast.networks import Conditioning, TextInputs, latent, random, rel_error
from tests.stable_fast.test_eight_bits import TIMESTEPS, change, picture, runner_of

BELOW = "falls below its floor on this checkpoint"

pytestmark = pytest.mark.own_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


def test_a_checkpoint_with_outliers_says_so_now_and_later_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tiny.unet(tiny.SMALL_UNET)
    network = with_outliers(copy.deepcopy(usual), 1024)
    exact = picture(EagerRunner(network))
    assert rel_error(exact[-1], picture(EagerRunner(usual))[-1]) < 1e-5
    for made_of, precision, is_below in ((network, "int8", True), (usual, "int8", False), (network, "fp8", False)):
        runner = runner_of(made_of, precision)
        error = rel_error(picture(runner)[-1], exact[-1])
        assert runner.report.precision_error == pytest.approx(error, rel=1e-2)
        assert (error > MOST_ERROR[precision]) == (BELOW in runner.report.status_line()) == is_below
    monkeypatch.setattr(unet_runner, "step_error", lambda *_: pytest.fail("what is kept is measured again"))
    later = runner_of(network, "int8")
    picture(later, TIMESTEPS[:1])
    told = f"int8 {BELOW} (a step is off by {later.report.precision_error:.1%}, and may be by {MOST_ERROR['int8']:.1%})"
    assert told in later.report.status_line()
    later.refresh_weights(change(network, 0.3))
    picture(later)
    assert BELOW in later.report.status_line() and later.report.counters.eager_steps == 0


def test_the_error_is_relative_and_of_the_first_result() -> None:
    expected = random(2, 4, 8, 8)
    assert step_error(1.25 * expected, lambda: (expected, random(3))) == pytest.approx(0.25, rel=1e-5)
    assert step_error(expected.half(), lambda: expected) < 1e-3
    assert step_error(expected * math.nan, lambda: expected) == math.inf

    def without_memory() -> None:
        raise torch.OutOfMemoryError

    assert step_error(expected, without_memory) is None


@pytest.mark.slow
def test_the_demo_model_says_nothing_and_says_so_with_outliers() -> None:
    unet = Session(device="cpu").model(GenerationOptions(prompt="", checkpoint="demo")).unet.module
    inputs = Conditioning(texts=(TextInputs(random(2, 77, unet.config.context_dim)),))
    for times in (1, 4096):
        runner = runner_of(with_outliers(unet, times), "int8")
        with torch.inference_mode():
            runner.prepare(inputs, list(TIMESTEPS))
            for timestep in TIMESTEPS:
                runner.step(latent(), timestep)
        assert (BELOW in runner.report.status_line()) == (times > 1)
