"""Pixel upscalers (ESRGAN and its kin) through spandrel, an optional extra that knows their many architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from modules.core.errors import ModelFileError
from modules.images.convert import to_pil, to_tensor

Upscaler = Callable[[Image.Image], Image.Image]


def load_upscaler(path: Path, device: torch.device) -> Upscaler:
    """A function from a picture to a larger one; ModelFileError without spandrel or for a file it does not know."""
    try:
        import spandrel
    except ImportError as error:
        raise ModelFileError(
            f"The upscaler {path.name} needs the extra package spandrel: "
            "run .venv/bin/pip install spandrel, or use --hires-method lanczos."
        ) from error
    try:
        model = spandrel.ModelLoader(device=device).load_from_file(path)
    except (spandrel.UnsupportedModelError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelFileError(f"{path.name} is not an upscaler that can be used ({error}).") from error
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise ModelFileError(f"{path.name} is not a picture upscaler; choose an ESRGAN-type model.")
    network = model.eval()

    @torch.inference_mode()
    def upscale(image: Image.Image) -> Image.Image:
        pixels = to_tensor(image).to(device) / 2 + 0.5
        return to_pil(network(pixels) * 2 - 1)[0]

    return upscale
