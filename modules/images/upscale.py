"""Upscales pictures with a network; networks other than ESRGAN need spandrel, an optional extra."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.images.convert import to_pil, to_tensor

OnTile = Callable[[int, int], None]  # the number of finished tiles of a picture, and of all its tiles
UpscalingNetwork = Callable[[Tensor], Tensor]  # pictures [N, 3, H, W] in 0..1 -> larger ones

TILE, OVERLAP = 512, 32  # in pixels of the original picture, per side
EVEN = 4  # every network accepts multiples of this: the smallest Real-ESRGAN networks move 4 x 4 pixels into channels
# spandrel imports these for LaMa and RestoreFormer, which are not upscalers; the real torchvision would replace torch.
_UNUSED_MODULES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
_UNUSED_NAMES = ("InterpolationMode", "normalize", "rotate")


class Upscaler(Protocol):
    def __call__(self, image: Image.Image, on_tile: OnTile | None = None) -> Image.Image:
        """Enlarges a picture by the network's own factor; an exception of `on_tile` stops the work."""
        ...


def upscaler_of(network: UpscalingNetwork, device: torch.device, name: str) -> Upscaler:
    """Returns a function that enlarges a picture, splitting large pictures into tiles to limit memory use."""

    @torch.inference_mode()
    def upscale(image: Image.Image, on_tile: OnTile | None = None) -> Image.Image:
        pixels = to_tensor(image).to(device) / 2 + 0.5
        larger = upscale_tensor(network, pixels, on_tile)
        if not bool(torch.isfinite(larger).all()):
            raise ModelFileError(f"The upscaler {name} returned invalid numbers (NaN); use another upscaler.")
        return to_pil(larger * 2 - 1)[0]

    return upscale


def upscale_tensor(network: UpscalingNetwork, pixels: Tensor, on_tile: OnTile | None = None) -> Tensor:
    """Enlarges [1, 3, H, W] to [1, 3, scale * H, scale * W] on the CPU.

    Tiles overlap; each pixel comes from a tile in which that pixel is not near the rim.
    """
    height, width = pixels.shape[-2:]
    pieces: dict[tuple[int, int], Tensor] = {}
    corners = list(product(_starts(height), _starts(width)))
    for done, (top, left) in enumerate(corners, start=1):
        pieces[top, left] = _one(network, pixels[..., top : top + TILE, left : left + TILE]).float().cpu()
        if on_tile is not None:
            on_tile(done, len(corners))
    scale = pieces[0, 0].shape[-1] // min(width, TILE)
    out = torch.empty(1, 3, scale * height, scale * width)
    for (top, left), piece in pieces.items():
        # The rim of a tile was computed without its surroundings, so it is dropped except at the picture's border.
        skip_top, skip_left = (OVERLAP // 2 if start else 0 for start in (top, left))
        y, x = scale * (top + skip_top), scale * (left + skip_left)
        inside = piece[..., scale * skip_top :, scale * skip_left :]
        out[..., y : y + inside.shape[-2], x : x + inside.shape[-1]] = inside
    return out


def _starts(length: int) -> list[int]:
    """Returns the start positions of tiles along one side; the last tile ends at the picture's edge."""
    last = max(0, length - TILE)
    return [*range(0, last, TILE - OVERLAP), last]


def _one(network: UpscalingNetwork, pixels: Tensor) -> Tensor:
    """Pads the picture to a size that the network accepts, runs the network, and crops the result."""
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (0, -width % EVEN, 0, -height % EVEN), mode="replicate")
    result = network(padded)
    scale = result.shape[-1] // padded.shape[-1]
    return result[..., : scale * height, : scale * width]


def load_with_spandrel(path: Path, device: torch.device) -> UpscalingNetwork:
    """Loads any other kind of upscaler. Raises ModelFileError if spandrel is missing or does not recognise the file."""
    try:
        spandrel = _import_spandrel()
    except ImportError as error:
        raise ModelFileError(
            f"{path.name} is not an ESRGAN-type upscaler; for other kinds run "
            ".venv/bin/pip install --no-deps spandrel einops, or use --hires-method lanczos."
        ) from error
    try:
        model = spandrel.ModelLoader(device=device).load_from_file(path)
    except (spandrel.UnsupportedModelError, OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelFileError(f"{path.name} is not a usable upscaler ({reason}).") from error
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.purpose not in ("SR", "Restoration"):
        raise ModelFileError(f"{path.name} is not a picture upscaler; choose an ESRGAN-type model.")
    return model.eval()


def _import_spandrel() -> Any:
    stand_ins = {} if find_spec("torchvision") else {name: ModuleType(name) for name in _UNUSED_MODULES}
    for module in stand_ins.values():
        vars(module).update(dict.fromkeys(_UNUSED_NAMES))
    sys.modules.update(stand_ins)
    try:
        import spandrel  # pyright: ignore[reportMissingImports]  # optional: requirements-extra.txt
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return spandrel
