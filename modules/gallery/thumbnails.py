"""Makes small versions of picture files: kept in memory for the page, or saved as the picture of a model (no torch)."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

from modules.core.errors import OutputError
from modules.core.files import write_whole

SIDE = 256  # pixels of the longer side
SAVED_SIDE = 512  # of a thumbnail that is kept as a file, which other programs may show larger
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_KEPT = 600  # thumbnails, of some 10 KB each
QUALITY = 85


class Thumbnails:
    """Thumbnails as JPEG files; a picture is decoded again only when its time or its size changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, path: Path) -> bytes:
        """Returns the thumbnail of a picture file. Raises OptionsError for a file that is missing or no picture."""
        try:
            state = path.stat()
            key = (path, state.st_mtime_ns, state.st_size)
        except OSError:
            key = (path, 0, 0)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data = encoded(path, SIDE, "JPEG")
        with self._lock:
            self._kept[key] = data
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return data


def save_thumbnail(source: Path, target: Path, *, replace: bool) -> None:
    """Writes a small version of a picture, in the format of the target's ending and without its settings.

    Raises OptionsError for a source that is no picture, OutputError if the target exists and `replace` is false, or if
    it cannot be written.
    """
    if not replace and os.path.lexists(target):
        raise OutputError(f"{target.name} exists already in {target.parent}; move it away first.")
    data = encoded(source, SAVED_SIDE, FORMATS[target.suffix.lower()])
    try:
        write_whole(target, data)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror or error}); check its folder.") from error


def encoded(path: Path, side: int, kind: str) -> bytes:
    """Returns a picture with a longer side of at most `side` pixels, as a file of this format."""
    from modules.images.open import open_image  # imports Pillow, which a front end does not need to start

    image = open_image(path).convert("RGB")
    image.info.clear()
    image.thumbnail((side, side))
    data = BytesIO()
    image.save(data, format=kind, quality=QUALITY)
    return data.getvalue()
