"""Prepares the start picture and its mask: opens, fits and encodes them, and later restores the unmasked part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from modules.core.errors import OptionsError
from modules.generation.options import InitImage
from modules.images.convert import to_tensor
from modules.images.modes import to_mask, to_rgb
from modules.images.open import open_image
from modules.images.resize import resize_image
from modules.sampling.noise import ImageNoise

Encode = Callable[[Tensor], Tensor]  # pictures in -1..1 -> scaled latents

log = logging.getLogger(__name__)

FILL_RADII = (128, 64, 32, 16, 8, 4, 2)


@dataclass(frozen=True, kw_only=True)
class Inpaint:
    """The part to keep: `latent` [1, C, h, w] outside `mask` [1, 1, h, w], which is 1 where to repaint."""

    latent: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class OpenedInit:
    """The opened files of an InitImage, upright and at their original size. The mask is grey; white is repainted."""

    init: InitImage
    image: Image.Image
    mask: Image.Image | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """An OpenedInit fitted to one size. latent [1, C, h, w]; mask [1, 1, h, w]; pictures at full pixel size."""

    init: InitImage
    picture: Image.Image
    latent: Tensor
    mask_picture: Image.Image | None = None
    mask: Tensor | None = None

    def latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns the initial latents for sampling, [N, C, h, w]; `mask_content` may replace their masked part."""
        latent = self.latent.expand(len(seeds), -1, -1, -1)
        if self.mask is None or self.init.mask_content in ("original", "fill"):
            return latent
        content = torch.zeros_like(latent)
        if self.init.mask_content == "noise":
            content = ImageNoise(seeds, tuple(latent.shape[1:])).start().to(latent)
        return torch.lerp(latent, content, self.mask)

    @property
    def inpaint(self) -> Inpaint | None:
        return None if self.mask is None else Inpaint(latent=self.latent, mask=self.mask)

    def put_back(self, image: Image.Image) -> Image.Image:
        """Returns the repainted picture, with the original pixels restored where the mask is black."""
        if self.mask_picture is None:
            return image
        return Image.composite(image, self.picture, self.mask_picture)


def open_source(init: InitImage) -> OpenedInit:
    """Opens the files. Raises OptionsError when a file is unreadable or the mask does not fit the picture."""
    image = to_rgb(open_image(init.image))
    if init.mask is None:
        return OpenedInit(init=init, image=image, mask=None)
    mask = to_mask(open_image(init.mask))
    if mask.size != image.size:
        raise OptionsError(
            f"The mask {init.mask.name} is {mask.width}x{mask.height} but the picture {init.image.name} is "
            f"{image.width}x{image.height}: make them the same size."
        )
    if mask.getbbox() is None:
        log.warning("The mask %s is black or transparent everywhere, so nothing is repainted.", init.mask.name)
    return OpenedInit(init=init, image=image, mask=mask)


def fit(source: OpenedInit, encode: Encode, width: int, height: int) -> Start:
    """Fits the picture and its mask to width x height pixels, and encodes the picture."""
    init = source.init
    picture = resize_image(source.image, width, height, init.resize)
    if source.mask is None:
        return Start(init=init, picture=picture, latent=encode(to_tensor(picture)))
    mask_picture = resize_image(source.mask, width, height, init.resize)
    if init.mask_blur:
        mask_picture = mask_picture.filter(ImageFilter.GaussianBlur(init.mask_blur))
    filled = fill_masked(picture, mask_picture) if init.mask_content == "fill" else picture
    latent = encode(to_tensor(filled))
    return Start(
        init=init, picture=picture, latent=latent, mask_picture=mask_picture, mask=latent_mask(mask_picture, latent)
    )


def latent_mask(mask: Image.Image, latent: Tensor) -> Tensor:
    """Converts a grey picture to [1, 1, h, w] in 0..1 at the latent's size; each cell is the mean of its pixels."""
    pixels = torch.from_numpy(np.array(mask, dtype=np.float32) / 255.0)[None, None]
    return F.interpolate(pixels, size=latent.shape[-2:], mode="area")


def inpaint_channels(encode: Encode, start: Start | None, width: int, height: int) -> Tensor:
    """Returns the five extra input channels of inpainting checkpoints, [1, 5, h, w].

    They are the mask and the encoded picture, whose masked part is grey. Without a mask, everything is repainted.
    """
    if start is None:
        latent = encode(torch.zeros(1, 3, height, width))
        return torch.cat([torch.ones_like(latent[:, :1]), latent], dim=1)
    if start.mask_picture is None or start.mask is None:
        return torch.cat([torch.ones_like(start.latent[:, :1]), encode(torch.zeros(1, 3, height, width))], dim=1)
    hard = torch.from_numpy(np.array(start.mask_picture, dtype=np.float32) / 255.0).round()
    masked = encode(to_tensor(start.picture) * (1.0 - hard))
    return torch.cat([start.mask.round(), masked], dim=1)


def fill_masked(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Fills the masked part with the surrounding colours.

    It overlays blurs of the unmasked pixels, from wide to narrow, each only within its radius.
    """
    keep = mask.point(lambda value: 255 - value)
    visible = Image.composite(picture, Image.new("RGB", picture.size), keep)
    weights = np.array(keep, dtype=np.float32)[..., None] / 255.0
    mean = np.array(visible, dtype=np.float32).sum((0, 1)) / max(float(weights.sum()), 1.0)
    filled = np.broadcast_to(mean, (*weights.shape[:2], 3)).astype(np.float32)
    for radius in FILL_RADII:
        blur = ImageFilter.GaussianBlur(radius)
        share = np.array(keep.filter(blur), dtype=np.float32)[..., None] / 255.0
        colour = np.array(visible.filter(blur), dtype=np.float32) / np.maximum(share, 1e-3)
        filled = filled + (colour - filled) * np.clip(share * 4.0, 0.0, 1.0)
    result = Image.fromarray(filled.clip(0, 255).round().astype(np.uint8))
    return Image.composite(result, picture, mask)
