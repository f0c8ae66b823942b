"""Bad picture files through every reader: always a sentence, never a program started, and History goes on."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from modules.core.errors import LightDiffusionError, OptionsError
from modules.generation.history import History, read_text
from modules.generation.image_to_image import open_source
from modules.generation.inputs import keep_file
from modules.generation.metadata import from_picture
from modules.generation.options import InitImage
from modules.generation.uploads import open_drawing
from modules.images.open import check_header

ROOT = Path(__file__).resolve().parents[2]
TEXT = "a cat\nNegative prompt: dog\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x64"
CHANGES = 80  # of each good file
EXTREMES = (b"\0", b"\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\xff\xff")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def readers(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Every way from a picture file into the program."""
    return {
        "the header": check_header,
        "image to image": lambda path: open_source(InitImage(image=path, mask=path)),
        "the API": lambda path: open_drawing(path, path),
        "the page's files": lambda path: keep_file(path, folder),
        "from a picture": from_picture,
        "history": read_text,
    }


def good_files() -> Iterator[tuple[str, bytes]]:
    """Small pictures of every format, in modes and with extras that have code of their own in Pillow."""
    noise = np.random.default_rng(5).integers(0, 256, (12, 10, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey, palette = rgba.convert("RGB"), rgba.convert("L"), rgba.quantize(16)
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    numbers = Image.fromarray((noise[..., 0] / 255).astype(np.float32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + TEXT.encode("utf-16-be")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    info.add_itxt("other", "ü", zip=True)
    info.add_text("more", "x" * 50, zip=True)
    moving = {"save_all": True, "append_images": [rgb.rotate(90), rgb], "duration": 9}
    yield "PNG", written(rgb, "PNG", pnginfo=info, exif=exif, icc_profile=b"profile" * 20)
    for image in (rgba, palette, grey.convert("1"), deep, grey.convert("LA")):
        yield "PNG", written(image, "PNG", transparency=None if image.mode in ("LA", "RGBA") else 0)
    yield "PNG", written(rgb, "PNG", **moving)
    yield "JPEG", written(rgb, "JPEG", exif=exif, icc_profile=b"profile" * 20)
    yield "JPEG", written(rgb, "JPEG", progressive=True)
    yield "JPEG", written(rgb.convert("CMYK"), "JPEG")
    yield "JPEG", written(rgb, "MPO", save_all=True, append_images=[rgb])
    yield "WEBP", written(rgba, "WEBP", exif=exif)
    yield "WEBP", written(rgb, "WEBP", lossless=True)
    yield "WEBP", written(rgb, "WEBP", **moving)
    yield "GIF", written(palette, "GIF", transparency=3)
    yield "GIF", written(rgb, "GIF", **moving)
    for image in (rgb, rgba, palette, grey.convert("1")):
        yield "BMP", written(image, "BMP")
    for image in (rgb, palette, deep, numbers, grey.convert("LA"), rgb.convert("LAB")):
        yield "TIFF", written(image, "TIFF", exif=exif)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield "TIFF", written(rgb, "TIFF", compression=compression)
    yield "TIFF", written(rgb, "TIFF", save_all=True, append_images=[rgb], big_tiff=True)


def written(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **{key: value for key, value in settings.items() if value is not None})
    return buffer.getvalue()


def changed(data: bytes, chance: random.Random) -> bytes:
    """One to four of: a byte, a number at its end, a piece cut out, doubled or moved, the end cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if len(out) < 9:
            break
        place, length = chance.randrange(len(out)), chance.choice((1, 2, 4, 8, 64))
        what = chance.randrange(6)
        if what == 0:
            out[place] = chance.randrange(256)
        elif what == 1:
            extreme = chance.choice(EXTREMES)
            out[place : place + len(extreme)] = extreme
        elif what == 2:
            del out[place : place + length]
        elif what == 3:
            out[place:place] = out[place : place + length]
        elif what == 4:
            other = chance.randrange(len(out))
            out[place : place + length] = out[other : other + length]
        else:
            del out[max(8, place) :]
    return bytes(out)


def with_checksums(data: bytes) -> bytes:
    """A changed PNG whose checksums are right again, so that more than the checksum is tried."""
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        length = min(struct.unpack_from(">I", out, place)[0], len(out) - place - 12)
        struct.pack_into(">I", out, place, length)
        struct.pack_into(">I", out, place + 8 + length, zlib.crc32(out[place + 4 : place + 8 + length]))
        place += 12 + length
    return bytes(out)


@pytest.mark.timeout(120)
def test_changed_files_are_read_or_refused_with_a_sentence(tmp_path: Path) -> None:
    chance = random.Random(15)
    ways = readers(tmp_path)
    path = tmp_path / "changed.png"
    refused = 0
    for kind, data in good_files():
        for _ in range(CHANGES):
            bad = changed(data, chance)
            path.write_bytes(with_checksums(bad) if kind == "PNG" and chance.random() < 0.8 else bad)
            for name in chance.sample(list(ways), 2):
                try:
                    ways[name](path)
                except LightDiffusionError as error:
                    refused += 1
                    assert str(error).isprintable() and len(str(error)) < 600
    assert refused > 1000


NO_PROGRAM = """
import os, sys
from pathlib import Path
from tests.hostile.test_pictures import readers, refused_by_the_page
from modules.core.errors import LightDiffusionError
folder = Path(sys.argv[1])
ways, started = readers(folder), []
programs = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty", "os.spawn")
sys.addaudithook(lambda event, arguments: started.append((event, arguments)) if event in programs else None)
for name, read in {**ways, **refused_by_the_page()}.items():
    try:
        read(folder / "drawing.png")
        text = ""
    except LightDiffusionError as error:
        text = str(error)
    if name != "history" and "is not a picture file" not in text:
        raise SystemExit(f"{name} does not refuse the file: {text}")
os.system("true")
assert started.pop()[0] == "os.system", "the hook hears nothing"
assert not started, started
"""


def refused_by_the_page() -> dict[str, Callable[[Path], object]]:
    """What Gradio does with an uploaded file before a handler sees it, and with a component of its own."""
    import gradio as gr
    from gradio.components.image_editor import EditorData
    from gradio.data_classes import FileData, ImageData

    from ui.pictures import PictureEditor, PictureFile, open_our_formats_only

    open_our_formats_only()
    editor, field, other = (
        PictureEditor(render=False),
        PictureFile(type="filepath", render=False),
        gr.Image(render=False),
    )

    def asked(read: Callable[[Path], object]) -> Callable[[Path], object]:
        def read_and_tell(path: Path) -> object:
            try:
                return read(path)
            except gr.Error as error:
                raise OptionsError(error.message) from error
            except OSError as error:
                raise OptionsError(f"is not a picture file ({error})") from error

        return read_and_tell

    return {
        "the editor": asked(lambda path: editor.preprocess(EditorData(background=FileData(path=str(path))))),
        "the control picture": asked(lambda path: field.preprocess(ImageData(path=str(path)))),
        "a component of Gradio": asked(lambda path: other.preprocess(ImageData(path=str(path)))),
    }


def test_no_program_is_started_for_a_drawing_with_a_false_name(tmp_path: Path) -> None:
    (tmp_path / "drawing.png").write_bytes(EPS)
    done = subprocess.run(
        [sys.executable, "-c", NO_PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.timeout(60)
def test_history_goes_on_whatever_lies_in_the_folder(tmp_path: Path) -> None:
    day = tmp_path / "2026-01-01"
    day.mkdir()
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    Image.new("RGB", (8, 8)).save(day / "00001-1.png", pnginfo=info)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + header
        + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    listed = {
        "bomb.png": bomb,
        "empty.png": b"",
        "drawing.png": EPS,
        "cut.png": (day / "00001-1.png").read_bytes()[:40],
    }
    for name, data in listed.items():
        (day / name).write_bytes(data)
    os.mkfifo(day / "pipe.png")
    (day / "folder.png").mkdir()
    (day / "loop.png").symlink_to("loop.png")
    (day / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "2026-01-02").symlink_to("2026-01-02")
    history = History(tmp_path)
    assert {path.name for path in history.paths()} == {"00001-1.png", *listed}
    entries, total = history.search()
    assert total == 1 + len(listed) and {entry.text for entry in entries} == {"", TEXT}
    assert [entry.path.name for entry in history.search("CAT")[0]] == ["00001-1.png"]
    for name in ("pipe.png", "loop.png", "broken.png", "folder.png"):
        with pytest.raises(OptionsError, match="no picture in the output folder"):
            history.delete(day / name)
    history.delete(day / "bomb.png")
    assert not (day / "bomb.png").exists()


def test_a_file_that_vanishes_while_it_is_listed_has_no_text(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.text(tmp_path / "2026-01-01" / "gone.png") == ""
    assert History(tmp_path / "nowhere").search() == ([], 0)
