"""Pictures to tensors and back: exact bytes, axes, orientation, invalid numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from modules.core.errors import OutputError
from modules.images.convert import to_pil, to_tensor


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
