"""Bad picture files in every reader of the project: one sentence, no program started, no file lost."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import LightDiffusionError, OptionsError
from modules.gallery.history import History, read_text
from modules.gallery.inputs import keep_file
from modules.gallery.uploads import open_drawing
from modules.generation.metadata.write import from_picture
from modules.images.modes import to_rgb
from modules.images.open import check_header, open_image

ROOT = Path(__file__).parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
ROUNDS = 250  # mutated files per format and reader


def samples() -> dict[str, bytes]:
    """One small good file of each format, with text, transparency and EXIF where the format has them."""
    info, exif = PngInfo(), Image.Exif()
    info.add_text("parameters", "a\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x64", zip=True)
    exif[274] = 6
    picture = Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 20)
    colour, clear = picture.convert("RGB"), picture.convert("RGBA")
    files: dict[str, bytes] = {}
    for name, image, settings in (
        ("png", clear, {"pnginfo": info, "exif": exif}),
        ("pal.png", colour.quantize(8), {"transparency": 1}),
        ("jpg", colour, {"exif": exif}),
        ("webp", clear, {"exif": exif}),
        ("gif", colour, {"save_all": True, "append_images": [colour.transpose(Image.Transpose.ROTATE_180)]}),
        ("bmp", colour, {}),
        ("tif", picture, {"compression": "tiff_lzw"}),
        ("plain.tif", colour, {}),
    ):
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.rpartition(".")[2], name.rpartition(".")[2].upper())
        image.save(buffer, kind, **settings)
        files[name] = buffer.getvalue()
    return files


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Returns the file with some bytes changed, cut off, doubled or filled with extreme values."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(changed))
        kind = generator.randrange(4)
        if kind == 0:
            changed[place] = generator.randrange(256)
        elif kind == 1:
            changed[place : place + 4] = generator.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
        elif kind == 2:
            del changed[place : place + generator.randint(1, 8)]
        else:
            changed[place:place] = changed[place : place + generator.randint(1, 16)]
        if not changed:
            return b""
    return bytes(changed[: generator.randrange(1, len(changed) + 1)] if generator.random() < 0.1 else changed)


def readers(folder: Path) -> dict[str, Callable[[Path], object]]:
    return {
        "to_rgb": lambda path: to_rgb(open_image(path)),
        "drawing": lambda path: open_drawing(path, path),
        "keep_file": lambda path: keep_file(path, folder),
        "from_picture": from_picture,
        "history": read_text,
        "header": check_header,
    }


def must_answer(reader: Callable[[Path], object], path: Path, label: str) -> None:
    try:
        reader(path)
    except LightDiffusionError as error:
        assert str(error).isprintable() and len(str(error)) < 900, f"{label}: {error!r}"
    except Exception as error:  # noqa: BLE001  # the point of the test
        pytest.fail(f"{label}: {type(error).__name__}: {error}")


def test_mutated_pictures_of_every_format_are_read_or_refused(tmp_path: Path) -> None:
    generator = random.Random(15)
    for name, data in samples().items():
        for round_ in range(ROUNDS):
            path = tmp_path / name
            path.write_bytes(mutated(data, generator))
            for label, reader in readers(tmp_path).items():
                must_answer(reader, path, f"{label} {name} {round_}")


@pytest.mark.parametrize("name", ["drawing.png", "drawing.eps", "picture.jpg"])
def test_a_format_outside_of_the_list_is_not_opened(tmp_path: Path, name: str) -> None:
    for data in (EPS, b"qoif" + bytes(60), b"DDS " + bytes(128), b"SIMPLE  =                    T" + bytes(2880)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(OptionsError, match="use PNG, JPEG"):
            open_image(tmp_path / name)


def test_no_program_starts_while_pictures_are_opened(tmp_path: Path) -> None:
    """This includes uploads that gradio opens itself, since its process supports only the listed formats."""
    (tmp_path / "drawing.png").write_bytes(EPS)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from modules.images.open import open_image\n"
        "from ui.panels.picture_fields import open_our_formats_only\n"
        "started = []\n"
        "names = ('subprocess.Popen', 'os.system', 'os.posix_spawn', 'os.exec', 'os.fork')\n"
        "sys.addaudithook(lambda name, _: started.append(name) if name in names else None)\n"
        "started.clear()\n"
        "open_our_formats_only()\n"
        "for opened in (open_image, lambda path: Image.open(path).load()):\n"
        "    try:\n"
        "        opened(sys.argv[1])\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
        "print(started)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "drawing.png")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["OptionsError", "UnidentifiedImageError", "[]"]


def test_a_pipe_a_folder_and_a_link_to_itself_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for name in ("pipe.png", "folder.png", "loop.png", "gone.png", "x" * 5000, "a\0b", "~nosuch/x.png"):
        must_answer(lambda path: to_rgb(open_image(path)), tmp_path / name, name)


def test_one_bad_file_does_not_break_the_history(tmp_path: Path) -> None:
    day = tmp_path / "2026-11-28"
    day.mkdir()
    Image.new("RGB", (64, 64)).save(day / "00001-1.png")
    header = bytearray((day / "00001-1.png").read_bytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    (day / "00002-2.png").write_bytes(header)
    (day / "00003-3.png").write_bytes(b"")
    os.mkfifo(day / "00004-4.png")
    (day / "00005-5.png").mkdir()
    (day / "00006-6.png").symlink_to(day / "00006-6.png")
    (day / "00007-7.png").write_bytes(EPS)
    entries, count = History(tmp_path).search()
    assert [entry.path.name for entry in entries] == ["00007-7.png", "00003-3.png", "00002-2.png", "00001-1.png"]
    assert count == 4 and History(tmp_path).search("steps") == ([], 0)
    History(tmp_path).delete(day / "00002-2.png")
    assert History(tmp_path).search()[1] == 3
