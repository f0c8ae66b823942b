"""Tests one pass of the sampler: the network's inputs, the reported progress, and the masked area."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modules.core.errors import Cancelled
from modules.core.progress import CancelToken
from modules.generation.job import Job, prepare_job
from modules.generation.options import InitImage
from modules.generation.pass_settings import PassSettings, first_settings
from modules.generation.passes.batch import Batch, Share
from modules.generation.passes.sampling_pass import sample_pass
from modules.generation.progress import Outside, Progress
from modules.generation.session import Session
from tests.generation.test_text_to_image import make, options

SILENT = Outside(on_progress=None, cancel=None, batch=1, batches=1, family="SD1.x")


def alone(job: Job, indices: range = range(1), outside: Outside = SILENT) -> Batch:
    """These pictures of one request: picture 0 has seed 5."""
    return Batch(job=job, shares=(Share(job=job, indices=indices, outside=outside),))


class CountingUNet(torch.nn.Module):
    """Wraps the UNet and records the number of rows of each evaluation."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module, self.rows = module, []

    def forward(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.rows.append(x.shape[0])
        return self.module(x, *rest)


@pytest.mark.parametrize(("cfg", "sampler", "rows"), [(1.0, "euler", 2), (3.0, "euler", 4), (1.0, "euler_cfg_pp", 4)])
def test_without_guidance_the_second_half_is_not_computed(
    session: Session, monkeypatch: pytest.MonkeyPatch, cfg: float, sampler: str, rows: int
) -> None:
    model = session.model(options())
    counter = CountingUNet(model.unet.module)
    clone = model.unet.clone

    def counted() -> Any:
        twin = clone()
        twin.module = counter
        twin.apply = lambda: None
        return twin

    monkeypatch.setattr(model.unet, "clone", counted)
    make(session, cfg=cfg, sampler=sampler, batch=2)
    assert counter.rows == [rows] * 3


@pytest.fixture
def job(session: Session) -> Job:
    return prepare_job(options(), session)


def noise_only(job: Job, pictures: int = 1) -> torch.Tensor:
    return torch.zeros(pictures, 4, job.options.height // 8, job.options.width // 8)


def test_the_seeds_decide_the_latents(job: Job) -> None:
    settings = first_settings(job.options)
    first, second = sample_pass(alone(job, range(2)), settings, noise_only(job, 2))
    [same] = sample_pass(alone(job, range(1, 2)), settings, noise_only(job))
    assert torch.allclose(second, same, atol=1e-4) and not torch.allclose(first, second, atol=1e-2)


def test_rescaled_guidance_keeps_to_the_spread_of_no_guidance(job: Job) -> None:
    plain = replace(first_settings(job.options), cfg=30.0)
    latents = {
        name: sample_pass(alone(job), settings, noise_only(job))
        for name, settings in (
            ("guided", plain),
            ("rescaled", replace(plain, rescale_cfg=1.0)),
            ("unguided", replace(plain, cfg=1.0)),
        )
    }
    guided, rescaled, unguided = (latent.std() for latent in latents.values())
    assert abs(rescaled - unguided) < abs(guided - unguided) / 2


def test_without_steps_the_latent_comes_back(job: Job) -> None:
    settings = PassSettings(phase="sampling", sampler="euler", scheduler="karras", steps=3, cfg=3.0, denoise=0.0)
    latent = torch.randn(1, 4, 9, 8)
    assert torch.equal(sample_pass(alone(job), settings, latent), latent)


def test_each_step_is_reported_and_may_stop_it(job: Job) -> None:
    cancel, told = CancelToken(), list[Progress]()

    def on_progress(event: Progress) -> None:
        told.append(event)
        if event.step == 2:
            cancel.cancel()

    outside = Outside(on_progress=on_progress, cancel=cancel, batch=2, batches=3, family="SD1.x")
    with pytest.raises(Cancelled):
        sample_pass(alone(job, outside=outside), first_settings(job.options), noise_only(job))
    assert [(event.phase, event.batch, event.batches, event.step) for event in told] == [
        ("sampling", 2, 3, step) for step in (0, 1, 2)
    ]


def test_outside_the_mask_the_latent_is_the_pictures_own(session: Session, photo: Path, mask: Path) -> None:
    job = prepare_job(options(init=InitImage(image=photo, mask=mask, mask_blur=0)), session)
    start = job.start_at(64, 72)
    assert start is not None
    result = sample_pass(alone(job), first_settings(job.options), start.latents([5]), start)
    assert torch.equal(result[..., :4], start.latent[..., :4])
    assert (result[..., 4:] - start.latent[..., 4:]).abs().max() > 0.1
