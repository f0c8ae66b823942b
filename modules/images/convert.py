"""PIL pictures <-> tensors [N, 3, H, W] in -1..1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from modules.core.errors import OptionsError, OutputError

WHITE = (255, 255, 255, 255)


def open_image(path: str | Path) -> Image.Image:
    """Read a whole picture file, so that a damaged one is reported here and not in the middle of a run."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise OptionsError(f"The picture {path} does not exist; check its name.") from error
    except IsADirectoryError as error:
        raise OptionsError(f"{path} is a folder; name one picture in it.") from error
    except UnidentifiedImageError as error:
        raise OptionsError(f"{path} is not a picture file that can be read; use PNG, JPEG or WebP.") from error
    except Image.DecompressionBombError as error:
        raise OptionsError(f"The picture {path} is too large ({error}).") from error
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError is what Pillow raises for a broken PNG
        raise OptionsError(f"The picture {path} is damaged or cannot be read ({error}).") from error
    return image


def to_pil(images: Tensor) -> list[Image.Image]:
    """Tensor in -1..1 to 8-bit pictures, rounded to nearest and clipped."""
    if not bool(torch.isfinite(images).all()):
        raise OutputError("The picture holds invalid numbers (NaN); try again with --dtype float32.")
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    arrays = scaled.to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def to_tensor(image: Image.Image) -> Tensor:
    """Any picture to [1, 3, H, W] in -1..1, upright as its EXIF says, transparency over white."""
    array = np.array(to_rgb(image), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).div_(127.5).sub_(1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as upright 8-bit RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
        grey = (np.asarray(image, dtype=np.int64).clip(0, 65535) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")
    return image.convert("RGB")
