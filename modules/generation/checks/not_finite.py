"""Finds out why a picture came out as NaN: a broken model file, LoRAs that are too strong, or the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.core.errors import LightDiffusionError, ModelFileError, OptionsError
from modules.generation.options import GenerationOptions
from modules.loader.checkpoint import LoadedModel


class NotFinite(OptionsError):
    """The result contains NaN or infinity, so no picture can be made from it."""


def cause(
    model: LoadedModel,
    options: GenerationOptions,
    dtype: torch.dtype,
    controls: Mapping[str, nn.Module],
    refiner: LoadedModel | None = None,
) -> LightDiffusionError:
    """Returns the error to raise: a ModelFileError with the file and the weight, or an OptionsError with advice.

    `controls` maps the file names of the ControlNets in use to their networks.
    """
    for file, network, weights in _loaded(model, options, controls, refiner):
        name = _not_finite(weights)
        if name is not None:
            return ModelFileError(_broken_file(file, f"{network}'s {name}", weights[name]))
    for network, patcher in (("UNet", model.unet), ("text encoder", model.text)):
        name = _not_finite(dict(patcher.module.named_parameters()))
        if name is not None:
            return OptionsError(
                f"The LoRAs make the {network}'s {name} larger than its type can hold: lower their strength"
                f"{_or_float32(dtype)}."
            )
    return NotFinite(
        "The result contains values that are not numbers (NaN), so no picture was written: "
        f"try {_advice(options, dtype)}."
    )


def _loaded(
    model: LoadedModel, options: GenerationOptions, controls: Mapping[str, nn.Module], refiner: LoadedModel | None
) -> Iterator[tuple[str, str, Mapping[str, Tensor]]]:
    """Yields the file name, the network's name, and the weights as loaded."""
    checkpoint = model.path.name
    yield checkpoint, "UNet", model.unet.pristine()
    texts = " or ".join(Path(name).name for name in options.text_encoders)
    yield texts or checkpoint, "text encoder", model.text.pristine()
    yield Path(options.vae or checkpoint).name, "VAE", dict(model.vae.named_parameters())
    if refiner is not None:
        yield refiner.path.name, "UNet", refiner.unet.pristine()
        yield refiner.path.name, "text encoder", refiner.text.pristine()
    for name, network in controls.items():
        yield Path(name).name, "ControlNet", dict(network.named_parameters())


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Returns the name of the first weight with a value that is not finite."""
    return next((name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())), None)


def _broken_file(file: str, weight: str, tensor: Tensor) -> str:
    if not bool(torch.isnan(tensor).any()) and tensor.dtype == torch.float16:
        return f"{file}: the {weight} is too large for float16; use --dtype float32 or bfloat16, or another copy."
    return f"{file}: the {weight} contains values that are not numbers; use another copy of this file."


def _or_float32(dtype: torch.dtype) -> str:
    return "" if dtype == torch.float32 else ", or use --dtype float32"


def _advice(options: GenerationOptions, dtype: torch.dtype) -> str:
    """Lists settings that may help, except those already in use."""
    choices = [] if dtype == torch.float32 else ["--dtype float32"]
    choices += [] if options.vae else ["another --vae"]
    choices += ["a lower --cfg"] if options.cfg > 1 else []
    return ", ".join([*choices, "another --sampler"])
