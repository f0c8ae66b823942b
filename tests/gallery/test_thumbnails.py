"""Small versions of pictures: made once, and again when the picture changes."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.gallery import thumbnails as module
from modules.gallery.thumbnails import SIDE, Thumbnails


def save(path: Path, colour: str, size: tuple[int, int] = (1024, 512)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def colour(jpeg: bytes) -> tuple[int, ...]:
    image = Image.open(BytesIO(jpeg))
    assert image.format == "JPEG" and max(image.size) <= SIDE
    return tuple(round(value / 50) for value in image.getpixel((9, 9)))  # type: ignore[union-attr]


def test_a_thumbnail_is_small_keeps_its_shape_and_follows_the_picture(tmp_path: Path) -> None:
    thumbnails, path = Thumbnails(), save(tmp_path / "x.png", "red")
    first = thumbnails.jpeg(path)
    assert colour(first) == (5, 0, 0) and Image.open(BytesIO(first)).size == (SIDE, SIDE // 2)
    assert thumbnails.jpeg(path) is first
    save(path, "blue")
    os.utime(path, ns=(1, 1))
    assert colour(thumbnails.jpeg(path)) == (0, 0, 5)


def test_only_the_latest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    thumbnails = Thumbnails()
    paths = [save(tmp_path / f"{number}.png", "red", (8, 8)) for number in range(3)]
    first, *_ = [thumbnails.jpeg(path) for path in paths]
    assert thumbnails.jpeg(paths[0]) is not first


@pytest.mark.parametrize("data", [b"", b"%!PS-Adobe-3.0 EPSF-3.0", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_is_refused_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    for path in (tmp_path / "x.png", tmp_path, tmp_path / "gone.png"):
        with pytest.raises(OptionsError):
            Thumbnails().jpeg(path)
