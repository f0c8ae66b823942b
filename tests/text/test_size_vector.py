"""What SDXL is told of sizes, against the numbers and the Fourier features of diffusers' pipeline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from diffusers.models.embeddings import Timesteps

from modules.core.errors import ModelFileError
from modules.text.size_vector import NEGATIVE_SCORE, PROMPT_SCORE, PictureSizes, size_features

SIZES = PictureSizes(target=(832, 1216), original=(3000, 2000), crop=(17, 250))
EACH = 256


def their_numbers(*, refiner: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """diffusers' numbers for the prompt and the negative prompt; its sizes are (height, width) and (top, left)."""
    layer = SimpleNamespace(in_features=1280 + EACH * (5 if refiner else 6))
    pipe: Any = SimpleNamespace(
        config=SimpleNamespace(requires_aesthetics_score=refiner),
        unet=SimpleNamespace(
            config=SimpleNamespace(addition_time_embed_dim=EACH), add_embedding=SimpleNamespace(linear_1=layer)
        ),
    )
    sizes = ((2000, 3000), (250, 17), (1216, 832))
    scores = (PROMPT_SCORE, NEGATIVE_SCORE)
    return StableDiffusionXLImg2ImgPipeline._get_add_time_ids(
        pipe, *sizes, *scores, *sizes, dtype=torch.float32, text_encoder_projection_dim=1280
    )


@pytest.mark.parametrize("refiner", [False, True])
def test_numbers_and_features_are_those_of_diffusers(*, refiner: bool) -> None:
    embed = Timesteps(EACH, flip_sin_to_cos=True, downscale_freq_shift=0)
    prompt, negative = (embed(numbers[0]).flatten() for numbers in their_numbers(refiner=refiner))
    found = size_features(SIZES, EACH * (5 if refiner else 6), refiner=refiner)
    torch.testing.assert_close(found.prompt, prompt, rtol=0, atol=1e-4)  # angles up to 3000 in float32
    torch.testing.assert_close(found.negative, negative, rtol=0, atol=1e-4)
    assert torch.equal(found.prompt, found.negative) == (not refiner)


def test_the_width_is_shared_out_evenly() -> None:
    assert size_features(SIZES, 6 * 8, refiner=False).prompt.shape == (48,)
    for width in (0, 6, 47, 50, -6):
        with pytest.raises(ModelFileError, match=f"leaves {width} values for 6 picture sizes"):
            size_features(SIZES, width, refiner=False)
