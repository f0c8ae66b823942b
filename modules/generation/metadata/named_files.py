"""Finds the files named in a picture's metadata by file name and the start of the SHA-256, without their folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modules.core.errors import ModelFileError, quoted
from modules.core.paths import ModelFolders
from modules.gallery.history import INPUTS
from modules.gallery.output import DAY

DIGITS = 16
MOST_FILES = 1000  # files to read per folder when searching for a hash
PIECE = 2**20  # bytes
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_KEPT = re.compile(f"[0-9a-f]{{{DIGITS}}}")  # the names of inputs kept beside the output are their hashes


def fingerprint(path: Path) -> str:
    """Returns the first 16 hex digits of a file's SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()[:DIGITS]


class Fingerprints:
    """Hashes of files, cached as long as the files do not change."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def of(self, path: Path) -> str | None:
        """Returns the file's hash; None for a folder or unreadable file."""
        try:
            if not path.is_file():
                return None
            state = path.stat()
            key = (path.resolve(), state.st_size, state.st_mtime_ns)
            if key not in self._known:
                self._known[key] = fingerprint(path)
            return self._known[key]
        except (OSError, ValueError):  # an impossible file name
            return None


def file_name(path: str | Path) -> str:
    """Returns the last part of a path from any system."""
    return re.split(r"[\\/]", str(path))[-1]


def is_there(path: Path) -> bool:
    """Tells whether this is a file or folder, since reading a device or pipe might never end."""
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):  # an impossible file name
        return False


def find_picture(named: Path, wanted: str | None, folders: Sequence[Path], known: Fingerprints) -> Path | None:
    """Finds the file with this name and hash in the folders, or else any picture there with this hash.

    Folders of a day's many pictures are searched by name only. A full path, as in our older pictures, needs no hash.
    """
    if wanted is None and named.is_absolute() and is_there(named) and named.is_file():
        return named
    name = file_name(named)
    if wanted is None and _KEPT.fullmatch(Path(name).stem):
        wanted = Path(name).stem
    if wanted is None:
        return None
    by_name = (folder / name for folder in folders)
    by_hash = (path for folder in folders if not folder.match(DAY) for path in _pictures(folder))
    return next((path for path in (*by_name, *by_hash) if known.of(path) == wanted), None)


def _pictures(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    except OSError:
        return
    yield from paths[:MOST_FILES]


def places_of(picture: Path, output: Path) -> list[Path]:
    """Lists folders that may contain a picture's files: those around it, our output folders, and the working folder."""
    beside, output = picture.absolute().parent, output.absolute()
    kept = [place for root in (beside.parent, output) for place in (root / INPUTS, *_days(root))]
    return list(dict.fromkeys([beside, *kept, output.parent, Path.cwd()]))


def _days(output: Path) -> Iterable[Path]:
    return sorted(output.glob(DAY), reverse=True)


def find_model(folders: ModelFolders, kind: str, name: str) -> Path:
    """Finds a model named in a picture's metadata. Raises ModelFileError if it is missing or not a file."""
    try:
        found = folders.find(kind, name)
    except (OSError, RuntimeError, ValueError) as error:  # an impossible file name
        raise ModelFileError(f"{quoted(name)} cannot be the name of a model file.") from error
    if not is_there(found):
        raise ModelFileError(f"{quoted(name)} is not a model file.")
    return found
