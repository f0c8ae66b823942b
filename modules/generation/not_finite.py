"""Finds out why a picture came out without numbers (NaN): a model file that holds such, LoRAs, or the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modules.core.errors import LightDiffusionError, ModelFileError, OptionsError

if TYPE_CHECKING:
    from modules.generation.job import Job


class NotFinite(OptionsError):
    """A result that holds NaN or infinity, so that no picture can be made of it."""


def cause(job: Job) -> LightDiffusionError:
    """The error to end with: ModelFileError that names the file and the weight, or OptionsError with what may help."""
    for file, network, weights in _loaded(job):
        name = _not_finite(weights)
        if name is not None:
            return ModelFileError(_broken_file(file, f"{network}'s {name}", weights[name]))
    for network, patcher in (("UNet", job.model.unet), ("text encoder", job.model.text)):
        name = _not_finite(dict(patcher.module.named_parameters()))
        if name is not None:
            return OptionsError(
                f"The LoRAs make the {network}'s {name} larger than its type can hold: lower their strength"
                f"{_or_float32(job)}."
            )
    return NotFinite(
        f"The result holds values that are not numbers (NaN), so no picture was written: try {_advice(job)}."
    )


def _loaded(job: Job) -> Iterator[tuple[str, str, Mapping[str, Tensor]]]:
    """File name, network, and its weights as they were loaded."""
    model, options = job.model, job.options
    checkpoint = model.path.name
    yield checkpoint, "UNet", model.unet.pristine()
    yield Path(next(iter(options.text_encoders), checkpoint)).name, "text encoder", model.text.pristine()
    yield Path(options.vae or checkpoint).name, "VAE", dict(model.vae.named_parameters())
    for control in job.controls:
        yield Path(control.choice.name).name, "ControlNet", dict(control.network.named_parameters())


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The first weight that is not finite throughout."""
    return next((name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())), None)


def _broken_file(file: str, weight: str, tensor: Tensor) -> str:
    if not bool(torch.isnan(tensor).any()) and tensor.dtype == torch.float16:
        return f"{file}: the {weight} is too large for float16; use --dtype float32 or bfloat16, or another copy."
    return f"{file}: the {weight} holds values that are not numbers; use another copy of this file."


def _or_float32(job: Job) -> str:
    return "" if job.dtype == torch.float32 else ", or use --dtype float32"


def _advice(job: Job) -> str:
    """What was not set already."""
    choices = [] if job.dtype == torch.float32 else ["--dtype float32"]
    choices += [] if job.options.vae else ["another --vae"]
    choices += ["a lower --cfg"] if job.options.cfg > 1 else []
    return ", ".join([*choices, "another --sampler"])
