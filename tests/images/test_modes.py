"""One rule for transparency and one for more than 8 bits, whatever mode a file has."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.images.modes import to_mask, to_rgb
from modules.images.open import open_image

RAMP = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))


def reread(image: Image.Image, folder: Path, name: str, **settings: object) -> Image.Image:
    image.save(folder / name, **settings)
    return open_image(folder / name)


def white_square(mode: str) -> Image.Image:
    """Draws white on a transparent background that is also white, so that only the alpha channel shows the square."""
    image = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (4, 4, 12, 12))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
def test_a_mask_is_brightness_times_alpha(mode: str) -> None:
    mask = np.asarray(to_mask(white_square("LA" if mode == "La" else "RGBA").convert(mode)))
    assert mask[0, 0] == 0 and mask[8, 8] == 255 and (mask == 255).sum() == 64


def test_half_transparent_grey_is_a_quarter_of_a_mask() -> None:
    assert np.asarray(to_mask(Image.new("LA", (2, 2), (128, 128)))).max() == round(128 * 128 / 255)


@pytest.mark.parametrize(
    ("mode", "colour", "ground", "key"),
    [
        ("L", 255, 0, 0),
        ("L", 200, 255, 255),
        ("RGB", (255, 255, 255), (255, 0, 0), (255, 0, 0)),
        ("P", 1, 0, 0),
        ("P", 1, 0, b"\x00\xff"),
        ("1", 255, 0, 0),
        ("I;16", 65535, 700, 700),
    ],
)
def test_a_transparent_value_of_any_mode_is_not_painted(
    tmp_path: Path, mode: str, colour: object, ground: object, key: object
) -> None:
    image = Image.new(mode, (8, 8), ground)  # type: ignore[arg-type]
    if mode == "P":
        image.putpalette([255, 255, 255] * 2)
    image.paste(colour, (2, 2, 6, 6))  # type: ignore[arg-type]
    read = reread(image, tmp_path, "mask.png", transparency=key)
    mask, laid = np.asarray(to_mask(read)), np.asarray(to_rgb(read))
    assert mask[0, 0] == 0 and mask[4, 4] >= 200, mask
    assert tuple(laid[0, 0]) == (255, 255, 255), "a transparent ground lies on white"


@pytest.mark.parametrize(("bits", "key"), [(1, 0), (2, 1), (4, 5), (16, 300)])
def test_a_transparent_grey_of_few_or_many_bits(tmp_path: Path, bits: int, key: int) -> None:
    """The file is written by hand, since values in the tRNS chunk have the file's own bit depth."""
    path = tmp_path / "grey.png"
    top = 2**bits - 1
    values = [[key, top]] * 2
    rows = b""
    for row in values:
        number = 0
        for value in row:
            number = number << bits | value
        width = max(8, 2 * bits)
        rows += b"\0" + (number << (width - 2 * bits)).to_bytes(width // 8, "big")
    header = struct.pack(">IIBBBBB", 2, 2, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", key)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data)
    mask = np.asarray(to_mask(open_image(path)))
    assert mask[0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("array", "brightest"),
    [
        (RAMP, 255),
        (RAMP * 255, 255),
        ((RAMP * 255).astype(np.int32), 255),
        ((RAMP * 65535).astype(np.int32), 255),
        ((RAMP * 65535).astype(np.uint16), 255),
        ((RAMP * 2560).astype(np.uint16), 10),  # not rescaled to 16 bits: this picture is dark
        ((RAMP * 0).astype(np.uint16), 0),
    ],
)
def test_numbers_of_many_bits_are_scaled(tmp_path: Path, array: np.ndarray, brightest: int) -> None:
    pixels = np.asarray(to_rgb(reread(Image.fromarray(array), tmp_path, "depth.tif")))
    assert pixels.max() == brightest and pixels.min() == 0
    if brightest == 255:
        assert np.abs(pixels[0, :, 0].astype(float) - np.linspace(0, 255, 64)).max() <= 1.01


@pytest.mark.parametrize(
    "array",
    [
        RAMP * 70000,
        RAMP - 0.5,
        (RAMP * 1e6).astype(np.int32),
        (RAMP * -5).astype(np.int32),
        (RAMP * 250).astype(np.uint16),
        (RAMP * 1.9).astype(np.uint16),
        np.full((4, 4), np.nan, "f4"),
    ],
)
def test_numbers_without_a_known_brightness_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(OptionsError, match="save it as 8 bit"):
        to_rgb(reread(Image.fromarray(array), tmp_path, "depth.tif"))


def test_big_endian_16_bit_files(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (64, 8), (RAMP * 65535).astype(">u2").tobytes())
    big.save(tmp_path / "big.tif")
    assert np.asarray(to_rgb(open_image(tmp_path / "big.tif"))).max() == 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "RGBX"])
def test_white_is_white_in_every_mode(mode: str) -> None:
    value: object = {"I": 255, "F": 1.0}.get(mode)
    if mode == "LAB":
        value = (255, 128, 128)
    image = Image.new("RGB", (2, 2), "white").convert(mode) if value is None else Image.new(mode, (2, 2), value)
    assert np.asarray(to_rgb(image)).min() >= 254 and np.asarray(to_mask(image)).min() >= 254


def test_masks_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.new("L", (8, 4))
    picture.putpixel((0, 0), 255)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    (tmp_path / "turned.png").write_bytes(buffer.getvalue())
    mask = to_mask(open_image(tmp_path / "turned.png"))
    assert mask.size == (4, 8) and mask.getpixel((3, 0)) == 255
