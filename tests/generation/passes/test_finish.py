"""Pictures of several requests are fetched later: what the device does next does not change them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.core.errors import MakeAgain
from modules.gallery.picture import Picture, PictureInFlight
from modules.generation.job import Job, prepare_jobs
from modules.generation.passes.batch import Batch
from modules.generation.passes.finish import decoded_pictures
from modules.generation.session import Session
from modules.generation.text_to_image import generate, shares_of
from modules.images.in_flight import PixelsInFlight
from tests.generation.test_text_to_image import options, pixels

REQUESTS = [options(prompt="a cat", seed=5), options(prompt="a dog", seed=6, negative_prompt="red")]


@pytest.fixture
def batch(session: Session) -> Batch:
    jobs = prepare_jobs(REQUESTS, session)
    shares = tuple(share for job in jobs for share in shares_of(job, None, None))
    return Batch(job=jobs[0], shares=shares, in_flight=True)


def latents() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def with_decoder(batch: Batch, decode: Any) -> Batch:
    networks: Any = batch.job.networks
    twin = object.__new__(type(networks))
    vars(twin).update(vars(networks), decode=decode)
    return Batch(job=replace(batch.job, networks=twin), shares=batch.shares, in_flight=True)


def test_all_are_decoded_before_one_is_fetched_even_if_the_decoder_has_one_buffer(batch: Batch) -> None:
    """A captured graph writes each result over the one before."""
    decode, buffer = batch.job.networks.decode, torch.empty(1, 3, 64, 64)
    made = list(decoded_pictures(with_decoder(batch, lambda z: buffer.copy_(decode(z))), None, latents()))
    buffer.fill_(0.5)
    assert [share.job.options.seed for share, _ in made] == [5, 6]
    for (share, picture), latent in zip(made, latents(), strict=True):
        assert isinstance(picture, PictureInFlight)
        fetched, alone = picture.fetched(), share_alone(share.job, latent)
        assert (pixels(fetched) == pixels(alone)).all() and fetched.parameters == alone.parameters
        assert (picture.seed, picture.request_seed) == (alone.seed, alone.request_seed) == (fetched.seed,) * 2


@torch.inference_mode()
def share_alone(job: Job, latent: Tensor) -> Picture:
    ((_, made),) = decoded_pictures(Batch(job=job, shares=tuple(shares_of(job, None, None))), None, latent[None])
    assert isinstance(made, Picture)
    return made


def test_the_text_of_a_fetched_picture_is_that_of_its_request(batch: Batch, session: Session) -> None:
    for request, (_, made) in zip(REQUESTS, decoded_pictures(batch, None, latents()), strict=True):
        assert made.fetched().parameters == next(iter(generate(request, session))).parameters


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told_when_it_is_fetched(batch: Batch, value: float) -> None:
    decode, calls = batch.job.networks.decode, list[int]()

    def spoiled(z: Tensor) -> Tensor:
        calls.append(1)
        picture = decode(z)
        return torch.where(torch.arange(64) == 9, value, picture) if len(calls) == 1 else picture

    (_, first), (_, second) = decoded_pictures(with_decoder(batch, spoiled), None, latents())
    with pytest.raises(MakeAgain, match="NaN"):
        first.fetched()
    assert np.isfinite(pixels(second.fetched())).all()


def test_a_fault_of_the_device_is_told_when_it_is_fetched(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PixelsInFlight) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(PixelsInFlight, "wait", broken)
    for _, made in decoded_pictures(batch, None, latents()):
        with pytest.raises(MakeAgain):
            made.fetched()
