"""A soft mask: black and white behave as in a hard mask, and grey lies in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.generation.image_to_image import Inpaint
from modules.generation.metadata.write import from_parameters
from modules.generation.options import HiresOptions, InitImage
from modules.generation.passes.masked_denoiser import MaskedDenoiser, mask_of_step
from modules.generation.session import Session
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.euler import sample_euler
from modules.sampling.switching import StepClock
from tests.generation.test_text_to_image import make, pixels


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m_cfg_pp"])
def test_a_mask_without_grey_gives_the_same_bits(session: Session, photo: Path, mask: Path, sampler: str) -> None:
    hard = InitImage(image=photo, mask=mask, mask_blur=0, denoise=0.9)
    pictures = [make(session, init=init, sampler=sampler)[0] for init in (hard, replace(hard, mask_soft=True))]
    assert (pixels(pictures[0]) == pixels(pictures[1])).all()


def test_each_grey_is_released_at_the_papers_step() -> None:
    """The authors' code keeps, in step i of n, the pixels whose map (1: keep) is above i / n."""
    levels = torch.linspace(0, 1, 256, dtype=torch.float64)
    for step in range(7):
        assert torch.equal(mask_of_step(levels, step, 7), (~(1 - levels > step / 7)).double())


def test_grey_blends_as_the_exact_solution_says() -> None:
    """Pictures N(c, s^2) have an exact denoiser. From level k on, their flow shrinks x - c by s / sqrt(s^2 + k^2)."""
    goal, spread, steps = 4.0, 0.5, 400
    sigmas = [*np.geomspace(10, 0.01, steps).tolist(), 0.0]
    grey = torch.linspace(0, 1, 33)[None, None, None]
    latent, noise = torch.full_like(grey, -1.0), torch.zeros_like(grey)
    clock = StepClock(sigmas)
    inpaint = Inpaint(latent=latent, mask=grey, soft=True)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (x * spread**2 + goal * sigma**2) / (spread**2 + sigma**2)

    masked = MaskedDenoiser(denoise, inpaint, noise, clock)  # type: ignore[arg-type]
    result = sample_euler(
        masked, latent, sigmas, noise=ImageNoise([0], (1, 1, 33)), on_step=lambda event: clock.step_done()
    )
    result = masked.finished(result).flatten()
    first = [next((s for i, s in enumerate(sigmas[:-1]) if m >= 1 - i / steps), 0.0) for m in grey.flatten().tolist()]
    level = torch.tensor(first)
    exact = goal + (latent.flatten() - goal) * spread / (spread**2 + level**2).sqrt()
    assert torch.allclose(result, exact, atol=0.03)
    assert result[0] == -1 and bool((result.diff() >= 0).all()) and result[-1] > 3.7


def test_a_soft_mask_works_in_the_second_pass(session: Session, photo: Path, mask: Path) -> None:
    init = InitImage(image=photo, mask=mask, mask_soft=True, mask_blur=8)
    picture = make(session, init=init, hires=HiresOptions(scale=1.5, steps=2))[0]
    assert picture.image.size == (96, 112)
    assert from_parameters(picture.parameters, places=[photo.parent]).init == init
