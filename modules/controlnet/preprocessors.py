"""Turns an ordinary picture into one that a ControlNet was trained on. No model files are needed.

The constants are the defaults of A1111's ControlNet extension, so its users get the pictures that they know.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from modules.controlnet.canny import canny_edges, gradients

Floats = NDArray[np.float32]

CANNY_LOW, CANNY_HIGH = 100.0, 200.0
LINE_SIGMA, LINE_THRESHOLD = 6.0, 8
FINE_SIGMA, COARSE_SIGMA, STROKE_THRESHOLD = 0.5, 5.0, 32
EDGE_SIGMA = 1.0
BLUR_SIGMA = 9.0
TILE = 8  # pixels of the hint that become one, like a latent's cell
DARK, BRIGHT, MOSTLY, HARDLY = 48, 207, 0.5, 0.1
SOBEL_GAIN = 4  # the Sobel filter's answer to a step of one


def hint_picture(image: Image.Image, width: int, height: int, preprocessor: str = "none") -> Image.Image:
    """Returns what a ControlNet is given; a picture with another aspect ratio is cropped, not stretched.

    `preprocessor` is one of `PREPROCESSORS`. It sees the final size, so that edges are as thin as those that
    ControlNets were trained on.
    """
    return FUNCTIONS[preprocessor](ImageOps.fit(_on_black(image), (width, height), Image.Resampling.LANCZOS))


def is_edge_map(image: Image.Image) -> bool:
    """Tells whether the picture is already drawn in white on black: mostly black, and hardly anything in between."""
    values = np.asarray(_on_black(image).convert("L"))
    between = (values > DARK) & (values < BRIGHT)
    return bool((values <= DARK).mean() > MOSTLY and between.mean() < HARDLY)


def canny(image: Image.Image, low: float = CANNY_LOW, high: float = CANNY_HIGH) -> Image.Image:
    """Draws white edges on black; `low` and `high` are the hysteresis thresholds, for gradients of 0..255 values."""
    return _drawn(np.where(canny_edges(np.asarray(image), low, high), 255, 0))


def lineart(image: Image.Image) -> Image.Image:
    """Draws what is darker than its surroundings; lines of usual strength become half bright."""
    darker = np.maximum((_blurred(image, LINE_SIGMA) - _values(image)).min(axis=-1), 0)
    lines = darker[darker > LINE_THRESHOLD]
    usual = max(16.0, float(np.median(lines))) if lines.size else 16.0
    return _drawn(darker * 127 / usual)


def scribble(image: Image.Image) -> Image.Image:
    """Draws strokes where a fine blur is darker than a coarse one (Winnemoeller 2012, XDoG, without its soft part)."""
    darker = (_blurred(image, COARSE_SIGMA) - _blurred(image, FINE_SIGMA)).min(axis=-1)
    return _drawn(np.where(darker > STROKE_THRESHOLD, 255, 0))


def softedge(image: Image.Image) -> Image.Image:
    """Draws the size of the Sobel gradient; a step from black to white is white."""
    smooth = image.filter(ImageFilter.GaussianBlur(EDGE_SIGMA))
    return _drawn(np.hypot(*gradients(np.asarray(smooth).astype(np.int32))) / SOBEL_GAIN)


def tile(image: Image.Image) -> Image.Image:
    """Averages squares of pixels and enlarges the result smoothly, so that only large parts keep their colours."""
    small = image.resize([max(1, round(side / TILE)) for side in image.size], Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR_SIGMA))


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


# One function for each name of names.py: takes and returns an RGB picture of the hint's size.
FUNCTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "canny": canny,
    "lineart": lineart,
    "scribble": scribble,
    "softedge": softedge,
    "tile": tile,
    "blur": blur,
    "grey": grey,
    "invert": ImageOps.invert,
}


def _on_black(image: Image.Image) -> Image.Image:
    """Converts to upright RGB; transparent parts become black, which means "nothing" in every kind of hint."""
    image = ImageOps.exif_transpose(image)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")


def _values(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32)


def _blurred(image: Image.Image, sigma: float) -> Floats:
    return _values(image.filter(ImageFilter.GaussianBlur(sigma)))


def _drawn(grey_values: NDArray[np.generic]) -> Image.Image:
    """Returns an RGB picture of values [H, W], limited to 0..255."""
    return Image.fromarray(np.clip(grey_values, 0, 255).astype(np.uint8)).convert("RGB")
