"""Tests jobs: the request is resolved, its models are ready, and errors are raised before anything is loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modules.core.errors import ModelFileError, OptionsError
from modules.generation.job import Job, prepare_job
from modules.generation.options import HiresOptions, ResolvedOptions
from modules.generation.session import Session
from modules.models.layers import timestep_embedding
from modules.text.size_vector import PROMPT_SCORE
from tests import tiny
from tests.generation.test_text_to_image import options


def test_size_and_seed_are_plain_numbers(session: Session) -> None:
    request = options(width=None, height=None, seed=None)
    resolved = prepare_job(request, session).options
    assert type(resolved) is ResolvedOptions
    assert (resolved.width, resolved.height, resolved.checkpoint) == (512, 512, "tiny") and type(resolved.seed) is int
    assert prepare_job(request, session).options.seed != resolved.seed


def test_batches_and_seeds_of_all_pictures(session: Session) -> None:
    job = prepare_job(options(number=2, batch=3, seed=10), session)
    assert job.batches() == [range(0, 3), range(3, 6)]
    assert [job.seeds(indices) for indices in job.batches()] == [[10, 11, 12], [13, 14, 15]]


def test_prompts_are_encoded_for_each_pass(session: Session) -> None:
    assert list(prepare_job(options(), session).prompts) == ["sampling"]
    assert list(prepare_job(options(hires=HiresOptions()), session).prompts) == ["sampling", "hires"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sampler": "none-such"}, OptionsError),
        ({"hires": HiresOptions(scheduler="none-such")}, OptionsError),
        ({"hires": HiresOptions(method="none-such")}, ModelFileError),
    ],
)
def test_wrong_names_are_reported_before_loading(
    session: Session, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], error: type[Exception]
) -> None:
    monkeypatch.setattr(session, "model", lambda _: pytest.fail("the checkpoint was loaded"))
    with pytest.raises(error, match="none-such"):
        prepare_job(options(**changes), session)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"original_size": "512x512", "crop": "0,64"}, "Original size and crop: no effect with a checkpoint of SD1.x"),
        ({"crop": "0,64"}, "Crop: no effect"),
        ({}, ""),
    ],
)
def test_sizes_that_a_checkpoint_does_not_read_are_told(
    session: Session, caplog: pytest.LogCaptureFixture, changes: dict[str, str], told: str
) -> None:
    prepare_job(options(**changes), session)
    assert bool(caplog.text) == bool(told) and told in caplog.text


@pytest.mark.parametrize(
    ("encoders", "vector", "numbers"),
    [(2, 32 + 6 * 8, [300, 512, 7, 40, 96, 64]), (1, 32 + 5 * 8, [300, 512, 7, 40, PROMPT_SCORE])],
)
def test_the_refiner_is_told_a_score_in_place_of_the_target_size(
    encoders: int, vector: int, numbers: list[float]
) -> None:
    spec = SimpleNamespace(
        unet=SimpleNamespace(vector_dim=vector), vae=SimpleNamespace(downscale=8), texts=tiny.SDXL_TEXTS[-encoders:]
    )
    told = SimpleNamespace(original_size="512x300", crop="40,7")
    job: Any = SimpleNamespace(model=SimpleNamespace(spec=spec), options=told)
    features = Job.sizes_for(job, torch.zeros(1, 4, 12, 8))
    assert features is not None
    assert torch.equal(features.prompt, timestep_embedding(torch.tensor(numbers), 8).flatten())
