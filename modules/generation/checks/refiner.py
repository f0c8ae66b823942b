"""Refuses a refiner that cannot go on from the checkpoint's latents."""

from __future__ import annotations

from modules.core.errors import ModelFileError, OptionsError
from modules.loader.detection.model_spec import ModelSpec


def require_sdxl(spec: ModelSpec) -> None:
    """Raises OptionsError for a base whose pictures no refiner knows."""
    if spec.family != "SDXL":
        raise OptionsError(
            f"The refiner goes on from SDXL's pictures, and this checkpoint is {spec.family}: choose an SDXL "
            "checkpoint, or leave out the refiner."
        )


def require_same_latents(base: ModelSpec, refiner: ModelSpec) -> None:
    """Raises ModelFileError if the two UNets read differently scaled latents, as with Playground 2.5."""
    ours, theirs = ((spec.vae.scale_factor, spec.vae.latent_mean, spec.vae.latent_std) for spec in (base, refiner))
    if ours != theirs:
        raise ModelFileError(
            "The refiner and this checkpoint scale their latents differently, so the one cannot go on from the "
            "other: leave out the refiner."
        )
