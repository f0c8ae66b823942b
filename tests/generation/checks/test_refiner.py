"""A refiner is refused beside a checkpoint whose latents it cannot go on from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modules.core.errors import ModelFileError, OptionsError
from modules.generation.checks.refiner import require_same_latents, require_sdxl
from modules.loader.detection.model_spec import ModelSpec
from modules.models.configs import SDXL_UNET, SDXL_VAE
from tests import tiny

SDXL = ModelSpec(
    unet=SDXL_UNET,
    vae=SDXL_VAE,
    texts=tiny.SDXL_TEXTS,
    family="SDXL",
    prediction="epsilon",
    zero_terminal_snr=False,
    native_size=1024,
    inpaint=False,
)


@pytest.mark.parametrize("family", ["SD1.x", "SD2.x"])
def test_only_sdxl_has_a_refiner(family: str) -> None:
    require_sdxl(SDXL)
    with pytest.raises(OptionsError, match=f"this checkpoint is {family}: choose an SDXL checkpoint, or leave out"):
        require_sdxl(replace(SDXL, family=family))


@pytest.mark.parametrize("other", [{"scale_factor": 0.5}, {"latent_mean": (1.0, 0.0, 0.0, 0.0)}])
def test_the_latents_must_have_the_same_scale(other: dict[str, Any]) -> None:
    require_same_latents(SDXL, SDXL)
    with pytest.raises(ModelFileError, match="scale their latents differently.*leave out the refiner"):
        require_same_latents(replace(SDXL, vae=replace(SDXL_VAE, **other)), SDXL)
