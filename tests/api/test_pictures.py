"""A request's pictures are data of a bounded size; addresses and paths are refused and never opened."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from api.pictures import as_base64, in_base64, keep_picture
from modules.core.errors import OptionsError
from modules.gallery.output import OutputFolder


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A grey PNG whose header claims this size, with too few pixels for it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(bytes(100)))


BOMB = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(2**27), 9))


@pytest.mark.parametrize("before", ["", "data:image/png;base64,", " \n"])
def test_a_picture_is_kept_as_a_file(tmp_path: Path, before: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(buffer, "PNG")
    kept = keep_picture(before + in_base64(buffer.getvalue()), "mask", OutputFolder(tmp_path))
    assert kept.is_relative_to(tmp_path) and Image.open(kept).getpixel((8, 6)) == (255, 0, 0)
    assert base64.b64decode(as_base64(kept)) == kept.read_bytes()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (str(Path(__file__)), "addresses and paths are not opened"),
        (f"file://{Path(__file__)}", "addresses and paths are not opened"),
        ("http://127.0.0.1/x.png", "addresses and paths are not opened"),
        ("data:text/html,x", "data:image/png;base64,"),
        ("", "not a picture file"),
        (in_base64(bytes(2**24)), "not a picture file"),
        (in_base64(png(30_000, 30_000)), "at most 64 megapixels"),
        (in_base64(png(64, 64, BOMB)), "damaged or cannot be read"),
        (in_base64(png(64, 64)), "damaged or cannot be read"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_picture_is_a_sentence(tmp_path: Path, given: str, told: str) -> None:
    with pytest.raises(OptionsError, match=told):
        keep_picture(given, "mask", OutputFolder(tmp_path))
    assert not list(tmp_path.iterdir())
