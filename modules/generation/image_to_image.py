"""Prepares the start picture and its mask: opens, fits and encodes them, and later restores the unmasked part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageFilter, ImageOps
from torch import Tensor

from modules.core.colours import read_colour
from modules.core.errors import OptionsError
from modules.core.sizes import Sides
from modules.generation.options import GenerationOptions, InitImage, TiledOptions
from modules.images.convert import to_tensor
from modules.images.masks.colour import mask_of_colour
from modules.images.masks.outpaint import extended
from modules.images.modes import to_mask, to_rgb
from modules.images.open import open_image
from modules.images.region import Box, Region, cut_out, region_round
from modules.images.resize import resize_image
from modules.images.upscale import Upscaler
from modules.sampling.noise import ImageNoise

Encode = Callable[[Tensor], Tensor]  # pictures in -1..1 -> scaled latents

log = logging.getLogger(__name__)

FILL_RADII = (128, 64, 32, 16, 8, 4, 2)


@dataclass(frozen=True, kw_only=True)
class Inpaint:
    """The part to keep: `latent` [1, C, h, w] outside `mask` [1, 1, h, w], which is 1 where to repaint.

    A `soft` mask grows from step to step.
    """

    latent: Tensor
    mask: Tensor
    soft: bool = False


@dataclass(frozen=True, kw_only=True)
class OpenedInit:
    """The opened files of an InitImage, upright and at their original size. The mask is grey; white is repainted.

    `region` is the part to repaint alone; its mask is blurred. `tiles` are the parts to repaint next, side by side.
    """

    init: InitImage
    image: Image.Image
    mask: Image.Image | None
    region: Region | None = None
    tiles: tuple[Box, ...] = ()

    def with_region(self, width: int, height: int) -> OpenedInit:
        """Chooses the part to repaint in the aspect of width x height, if only the masked part is wanted."""
        if self.mask is None or not (self.init.only_masked or self.init.each_part):
            return self
        mask = blurred(self.mask, self.mask_blur)
        return replace(self, region=region_round(self.image, mask, self.init.mask_padding, width, height))

    @property
    def mask_blur(self) -> int:
        """The blur's radius in pixels. The seam of outpainting is soft already."""
        return 0 if self.init.outpaint else self.init.mask_blur

    def enlarged(self, tiled: TiledOptions, upscaler: Upscaler | None) -> OpenedInit:
        """Returns the picture enlarged for a tiled upscale. Raises OptionsError if it would be too large."""
        size = tiled.target(*self.image.size)
        image = upscaler(self.image) if upscaler else self.image
        return replace(self, image=resize_image(image, *size))

    def kept(self, width: int, height: int) -> Image.Image | None:
        """Returns the picture fitted to width x height if the first pass leaves it as it is, or else None."""
        if self.init.denoise > 0 or self.mask is not None:
            return None
        return resize_image(self.image, width, height, self.init.resize)

    def parts_of(self, image: Image.Image, width: int, height: int) -> list[Image.Image]:
        """Returns the same parts of another image (a ControlNet's), which is first cropped to the picture's aspect."""
        boxes = (self.region.box,) if self.region else self.tiles
        if not boxes:
            return [image]
        fitted = resize_image(image, *self.image.size, "crop")
        return [cut_out(fitted, box, width, height) for box in boxes]


@dataclass(frozen=True, kw_only=True)
class Start:
    """An OpenedInit fitted to one size. latent [1, C, h, w]; mask [1, 1, h, w]; pictures at full pixel size.

    With a `region`, all of them show only this part of the picture.
    """

    init: InitImage
    picture: Image.Image
    latent: Tensor
    mask_picture: Image.Image | None = None
    mask: Tensor | None = None
    region: Region | None = None

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
        return None if self.mask is None else Inpaint(latent=self.latent, mask=self.mask, soft=self.init.mask_soft)

    def put_back(self, image: Image.Image) -> Image.Image:
        """Returns the repainted picture, with the original pixels restored where the mask is black."""
        if self.mask_picture is None:
            return image
        edge = steepened if self.init.mask_soft else Image.Image.copy
        if self.region is not None:
            return replace(self.region, mask=edge(self.region.mask)).put_back(image)
        return Image.composite(image, self.picture, edge(self.mask_picture))


def open_source(init: InitImage) -> OpenedInit:
    """Opens the files. Raises OptionsError when a file is unreadable or the mask cannot be used (see `open_mask`)."""
    image = to_rgb(open_image(init.image))
    if init.outpaint:
        image, seam = extended(image, Sides(*init.outpaint), init.outpaint_seam)
        return OpenedInit(init=init, image=image, mask=seam)
    mask = open_mask(init, image)
    if mask is None:
        return OpenedInit(init=init, image=image, mask=None)
    if init.mask_invert:
        mask = ImageOps.invert(mask)
    if mask.getbbox() is None:
        name = init.mask.name if init.mask else f"of the colour {init.mask_colour}"
        empty = "white everywhere, and inverted" if init.mask_invert else "black or transparent everywhere"
        log.warning("The mask %s is %s, so nothing is repainted.", name, empty)
    return OpenedInit(init=init, image=image, mask=mask)


def open_mask(init: InitImage, image: Image.Image) -> Image.Image | None:
    """Returns the mask of the opened start picture, grey and not inverted; None without one.

    Raises OptionsError if the file is unreadable or of another size, or if nothing is near the colour.
    """
    parts = [part for part in (_of_file(init, image), _of_colour(init, image)) if part is not None]
    return reduce(ImageChops.lighter, parts) if parts else None


def _of_file(init: InitImage, image: Image.Image) -> Image.Image | None:
    if init.mask is None:
        return None
    mask = to_mask(open_image(init.mask))
    if mask.size != image.size:
        raise OptionsError(
            f"The mask {init.mask.name} is {mask.width}x{mask.height} but the picture {init.image.name} is "
            f"{image.width}x{image.height}: make them the same size."
        )
    return mask


def _of_colour(init: InitImage, image: Image.Image) -> Image.Image | None:
    if init.mask_colour is None:
        return None
    mask = mask_of_colour(image, read_colour(init.mask_colour), init.mask_tolerance)
    if mask.getbbox() is None:
        raise OptionsError(
            f"Nothing in {init.image.name} is near the colour {init.mask_colour}: choose another --mask-colour, or "
            f"raise --mask-tolerance above {init.mask_tolerance}."
        )
    return mask


def with_extended_size(options: GenerationOptions, source: OpenedInit | None) -> GenerationOptions:
    """Returns the request with the extended picture's size, for outpainting without a size."""
    if source is None or not source.init.outpaint or source.init.only_masked:
        return options
    width, height = source.image.size
    return replace(options, width=options.width or width, height=options.height or height)


def fit(source: OpenedInit, encode: Encode, width: int, height: int) -> Start:
    """Fits the picture and its mask to width x height pixels, and encodes the picture."""
    init, region = source.init, source.region

    def fitted(image: Image.Image) -> Image.Image:
        return cut_out(image, region.box, width, height) if region else resize_image(image, width, height, init.resize)

    picture = fitted(source.image)
    if source.mask is None:
        return Start(init=init, picture=picture, latent=encode(to_tensor(picture)))
    mask_picture = fitted(region.mask) if region else blurred(fitted(source.mask), source.mask_blur)
    filled = fill_masked(picture, mask_picture) if init.mask_content == "fill" else picture
    latent = encode(to_tensor(filled))
    return Start(
        init=init,
        picture=picture,
        latent=latent,
        mask_picture=mask_picture,
        mask=latent_mask(mask_picture, latent),
        region=region,
    )


def blurred(mask: Image.Image, radius: int) -> Image.Image:
    return mask.filter(ImageFilter.GaussianBlur(radius)) if radius else mask


def steepened(mask: Image.Image) -> Image.Image:
    """Returns a soft mask for putting pixels back: black stays, and a quarter of white counts as white.

    What is grey was already blended by the sampler. Only the dark end has to hide the autoencoder's losses.
    """
    return mask.point([min(4 * value, 255) for value in range(256)])


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
