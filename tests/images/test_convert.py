"""Pictures to tensors and back: exact bytes, orientation, transparency, odd modes, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from modules.core.errors import OptionsError, OutputError
from modules.images.convert import open_image, to_pil, to_rgb, to_tensor


def test_every_byte_value_survives_the_round_trip() -> None:
    array = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    tensor = to_tensor(Image.fromarray(array))
    assert tensor.shape == (1, 3, 16, 16) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(np.asarray(to_pil(tensor)[0]), array)


def test_channels_and_axes_stay_in_place() -> None:
    image = Image.new("RGB", (5, 3))
    image.putpixel((4, 0), (255, 0, 0))
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 3, 5)
    assert tensor[0, :, 0, 4].tolist() == [1, -1, -1]


def test_values_outside_are_clipped_and_rounded_to_nearest() -> None:
    values = torch.tensor([-3.0, 3.0, 0.0, 100.4 / 127.5 - 1, 100.6 / 127.5 - 1])
    images = to_pil(values.expand(2, 3, 1, 5))
    assert len(images) == 2
    assert [images[1].getpixel((x, 0))[0] for x in range(5)] == [0, 255, 128, 100, 101]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_taken(dtype: torch.dtype) -> None:
    assert to_pil(torch.ones(1, 3, 2, 2, dtype=dtype))[0].getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_invalid_numbers_never_become_a_black_picture(bad: float) -> None:
    with pytest.raises(OutputError, match="NaN"):
        to_pil(torch.full((1, 3, 2, 2), bad))


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (4, 2), (255, 0, 0))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was turned: width and height swap
    image.info["exif"] = exif.tobytes()
    assert to_tensor(image).shape == (1, 3, 4, 2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    if mode == "P":
        image = image.quantize(4)
    rgb = to_rgb(image.convert(mode))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    rgb = to_rgb(Image.new("RGB", (2, 2), (255, 255, 255)).convert(mode))
    assert rgb.mode == "RGB" and min(rgb.getpixel((0, 0))) >= 254


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    rgb = to_rgb(grey)
    assert [rgb.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_missing_foreign_and_truncated_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="does not exist"):
        open_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(OptionsError, match=r"text\.png. is not a picture"):
        open_image(tmp_path / "text.png")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    for length in (60, len(data) // 2):
        (tmp_path / "cut.png").write_bytes(data[:length])
        with pytest.raises(OptionsError, match=r"cut\.png"):
            open_image(tmp_path / "cut.png")
    with pytest.raises(OptionsError, match="is a folder"):
        open_image(tmp_path)
