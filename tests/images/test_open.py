"""The only reader of picture files: its formats, limits and error messages."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from modules.core.errors import OptionsError
from modules.images.open import FORMATS, check_header, open_image


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_is_read(tmp_path: Path, kind: str) -> None:
    """The file name's extension does not matter, and an animation gives its first frame."""
    path = tmp_path / "picture.dat"
    moving = {"save_all": True, "append_images": [Image.new("RGB", (8, 6), "blue")]} if kind in ("GIF", "WEBP") else {}
    Image.new("RGB", (8, 6), "red").save(path, kind, **moving)
    red, green, blue = open_image(path).convert("RGB").getpixel((4, 3))  # type: ignore[misc]
    assert red > 240 and green < 15 and blue < 15
    check_header(path)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX", "EPS", "JPEG2000", "AVIF", "DDS"])
def test_other_formats_are_refused_under_any_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.png"
    if kind not in Image.SAVE:
        Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    Image.new("RGB", (16, 16), "red").save(path, kind)
    with pytest.raises(OptionsError, match=r'picture\.png" is not a picture file .*; use PNG, .* or TIFF'):
        open_image(path)


def test_missing_foreign_and_truncated_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="does not exist"):
        open_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    for reader in (open_image, check_header):
        with pytest.raises(OptionsError, match=r'text\.png" is not a picture'):
            reader(tmp_path / "text.png")
        with pytest.raises(OptionsError, match="is a folder"):
            reader(tmp_path)
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    for length in (60, len(data) // 2):
        (tmp_path / "cut.png").write_bytes(data[:length])
        with pytest.raises(OptionsError, match=r"cut\.png"):
            open_image(tmp_path / "cut.png")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.timeout(20)
def test_anything_but_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(OptionsError, match="not a regular file"):
            open_image(path)
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name in ("loop.png", "x" * 300, "zero\0.png", "whole.png/x"):
        with pytest.raises(OptionsError):
            open_image(tmp_path / name)


@pytest.mark.parametrize("size", [(60_000, 60_000), (9000, 9000), (2**31 - 1, 1), (1, 64_000_001)])
def test_the_size_is_refused_by_the_header_alone(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(*size))
    for reader in (open_image, check_header):
        with pytest.raises(OptionsError, match="at most 64 megapixels are allowed"):
            reader(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")


def test_pictures_are_upright_and_turned_once(tmp_path: Path) -> None:
    from modules.images.modes import to_rgb

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.jpg", exif=exif)
    image = open_image(tmp_path / "turned.jpg")
    assert image.size == to_rgb(image).size == (2, 4)
