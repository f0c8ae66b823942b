"""Every mode as 8-bit pictures and masks: what is transparent, and how bright numbers of more than 8 bits are."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from modules.core.errors import OptionsError
from modules.images.modes import to_8_bit, to_mask, to_rgb
from modules.images.open import open_image

# A PNG of one row by colour type and bit depth: black, then white; the number that is transparent names the white.
ONE_ROW = {
    "grey 1": (8, 1, 0, b"\x0f", 1),
    "grey 2": (4, 2, 0, b"\x0f", 3),
    "grey 4": (4, 4, 0, b"\x00\xff", 15),
    "grey 8": (2, 8, 0, b"\x00\xff", 255),
    "grey 16": (2, 16, 0, b"\x00\x00\xff\xff", 65535),
    "colour 8": (2, 8, 2, b"\x00" * 3 + b"\xff" * 3, 255),
    "colour 16": (2, 16, 2, b"\x00" * 6 + b"\xff\xfe" * 3, 65534),
}


def png(width: int, depth: int, colour: int, row: bytes, clear: int) -> io.BytesIO:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    named = struct.pack(">H", clear) * (3 if colour == 2 else 1)
    body = zlib.compress(b"\0" + row)
    parts = [(b"IHDR", header), (b"tRNS", named), (b"IDAT", body), (b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def ends(image: Image.Image) -> list[object]:
    return [image.getpixel((0, 0)), image.getpixel((image.width - 1, 0))]


@pytest.mark.parametrize("kind", ONE_ROW)
def test_the_number_that_a_png_calls_transparent_is_not_painted(kind: str) -> None:
    image = open_image(png(*ONE_ROW[kind]))
    assert ends(to_8_bit(image)) == [(0, 0, 0, 255), (*ends(to_8_bit(image))[1][:3], 0)]  # type: ignore[index]
    assert ends(to_mask(image)) == [0, 0], "the white part is transparent, so nothing is painted"
    assert ends(to_rgb(image)) == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La", "P"])
def test_a_mask_is_luminance_times_alpha(mode: str) -> None:
    """White at half cover, white at none, white at full, black at full."""
    image = Image.new("RGBA", (4, 1), (255, 255, 255, 255))
    image.putpixel((0, 0), (255, 255, 255, 128))
    image.putpixel((1, 0), (255, 255, 255, 0))
    image.putpixel((3, 0), (0, 0, 0, 255))
    if mode == "P":
        image = image.quantize(4)
    else:
        image = image.convert("LA").convert(mode) if mode == "La" else image.convert(mode)
    assert image.mode == mode
    assert np.allclose(np.asarray(to_mask(image))[0], [128, 0, 255, 0], atol=1)
    assert np.allclose(np.asarray(to_rgb(image))[0, :, 0], [255, 255, 255, 0], atol=1)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "I;16", "I;16B", "I;16L"]
)
def test_without_transparency_a_mask_is_the_luminance(mode: str) -> None:
    if mode.startswith("I;16"):
        image = Image.new(mode, (2, 1), 0)
        image.putpixel((1, 0), 65535)
    elif mode == "LAB":
        image = Image.merge(
            "LAB", [Image.frombytes("L", (2, 1), data) for data in (b"\0\xff", b"\x80\x80", b"\x80\x80")]
        )
    else:
        image = Image.new("RGB", (2, 1))
        image.putpixel((1, 0), (255, 255, 255))
        image = image.convert(mode)
    dark, bright = ends(to_rgb(image))
    assert max(dark) <= 3 and min(bright) >= 252  # type: ignore[call-overload]
    assert np.allclose(np.asarray(to_mask(image))[0], [0, 255], atol=3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 32768, 65535, 255]], dtype=np.uint16))
    assert [to_rgb(grey).getpixel((x, 0))[0] for x in range(4)] == [0, 128, 255, 1]  # type: ignore[index]


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_have_the_white_that_their_values_show(kind: type, white: int) -> None:
    array = (np.array([[0, 0.2, 1]]) * white).astype(kind)
    grey = np.asarray(to_rgb(Image.fromarray(array)))[0, :, 0]
    assert np.allclose(grey, array[0] * (255 / white), atol=0.51)


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
def test_a_constant_float_is_between_black_and_white(constant: float) -> None:
    image = Image.fromarray(np.full((2, 2), constant, dtype=np.float32))
    assert abs(to_mask(image).getpixel((0, 0)) - 255 * constant) <= 0.5  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.0, float("nan")), "nan"),
        ((0.0, float("inf")), "from 0 to inf"),
        ((-1.0, 1.0), "from -1 to 1"),
        ((0.0, 7.5), "from 0 to 7.5"),  # metres, say: as bytes nearly black
        ((0.0, 1e9), r"from 0 to 1e\+09"),
    ],
)
def test_values_without_a_white_are_refused(values: tuple[float, float], words: str) -> None:
    for read in (to_rgb, to_mask):
        with pytest.raises(OptionsError, match=f"32-bit values .*{words}.* save it as 8 or 16 bit"):
            read(Image.fromarray(np.array([values], dtype=np.float32)))


@pytest.mark.parametrize("value", [-5, 2**31 - 1, 1000])
def test_whole_numbers_without_a_white_are_refused(value: int) -> None:
    with pytest.raises(OptionsError, match=f"{value:g}, and|from {value:g}".replace("+", r"\+")):
        to_rgb(Image.fromarray(np.array([[0, value]], dtype=np.int32)))


def test_picture_and_mask_are_turned_upright() -> None:
    image = Image.new("L", (4, 2))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was turned: width and height swap
    image.info["exif"] = exif.tobytes()
    assert to_rgb(image).size == to_mask(image).size == (2, 4)
