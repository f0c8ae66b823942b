"""Picture files with their generation text: names that never collide, files that are whole or not there at all."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
from datetime import date
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import OptionsError, OutputError, quoted
from modules.images.metadata import PNG_KEY, parameters_of
from modules.images.open import opened

COMPRESSION = 4  # half the time of Pillow's default for a few percent more bytes
_NUMBERED = re.compile(r"(\d+)-")
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def save_png(image: Image.Image, folder: str | Path, seed: int, text: str = "") -> Path:
    """Write `folder/<date>/NNNNN-<seed>.png` with the generation text inside; returns the path."""
    data = _encode(image, text)
    day = Path(folder) / date.today().isoformat()
    try:
        day.mkdir(parents=True, exist_ok=True)
        return _write(data, day, seed)
    except OSError as error:
        raise OutputError(_explain(error, day)) from error


def read_parameters(path: str | Path) -> str:
    """The generation text inside a picture file, ours or A1111's. Raises OptionsError."""
    with opened(path) as image:
        text = parameters_of(image)
        if text is None:  # it may stand behind the pixels
            image.load()
            text = parameters_of(image)
    if text is None:
        raise OptionsError(
            f"{quoted(path)} holds no generation text; it was made or rewritten by a program that leaves it out."
        )
    return text


def _encode(image: Image.Image, text: str) -> bytes:
    info = PngInfo()
    if text:
        # A lone surrogate (an argument that was not valid UTF-8) cannot be stored; the picture must not be lost for it.
        info.add_text(PNG_KEY, text.encode("utf-8", "replace").decode("utf-8"))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=COMPRESSION)
    return buffer.getvalue()


def _write(data: bytes, day: Path, seed: int) -> Path:
    """All bytes go to a hidden file first; only the whole file gets the visible name."""
    hidden = day / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(hidden, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _publish(hidden, day, seed)
    finally:
        hidden.unlink(missing_ok=True)


def _publish(hidden: Path, day: Path, seed: int) -> Path:
    number = _last_number(day) + 1
    while True:
        path = day / f"{number:05d}-{seed}.png"
        if _move(hidden, path):
            return path
        number += 1


def _move(hidden: Path, path: Path) -> bool:
    """Give the file its final name unless another process took that name first."""
    try:
        if os.name == "nt":
            os.rename(hidden, path)  # refuses an existing target on Windows
        else:
            os.link(hidden, path)
    except FileExistsError:
        return False
    except OSError as error:
        if os.name == "nt" or error.errno not in _NO_HARD_LINKS:
            raise
        return _move_without_links(hidden, path)
    return True


def _move_without_links(hidden: Path, path: Path) -> bool:
    """For file systems without hard links: reserve the name, then replace the empty file in one step."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    os.replace(hidden, path)
    return True


def _last_number(day: Path) -> int:
    matches = (_NUMBERED.match(name) for name in os.listdir(day))
    return max((int(match.group(1)) for match in matches if match), default=0)


def _explain(error: OSError, day: Path) -> str:
    if error.errno in _NO_SPACE:
        return f"The disk is full: the picture could not be written to {day}; free some space or use --output-dir."
    if error.errno in _NO_PERMISSION:
        return f"No permission to write to {day}; choose another folder with --output-dir."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{day} cannot be a folder because a file is in the way; choose another with --output-dir."
    return f"The picture could not be written to {day} ({error.strerror or error}); choose another with --output-dir."
