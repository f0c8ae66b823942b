"""Files that a picture's text names without saying where they are: by their names and the start of their SHA-256."""

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
MOST_FILES = 1000  # of one folder that are read in search of a hash
PIECE = 2**20  # bytes
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_KEPT = re.compile(f"[0-9a-f]{{{DIGITS}}}")  # inputs that are kept beside the output are called by their hash


def fingerprint(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()[:DIGITS]


class Fingerprints:
    """Those of files that were asked for before are known as long as the files do not change."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def of(self, path: Path) -> str | None:
        """None for a folder, and for a file that cannot be read."""
        try:
            if not path.is_file():
                return None
            state = path.stat()
            key = (path.resolve(), state.st_size, state.st_mtime_ns)
            if key not in self._known:
                self._known[key] = fingerprint(path)
            return self._known[key]
        except (OSError, ValueError):  # a name that no file can have
            return None


def file_name(path: str | Path) -> str:
    """The last part of a path of any system."""
    return re.split(r"[\\/]", str(path))[-1]


def is_there(path: Path) -> bool:
    """Whether this is a file or a folder, and no device or pipe, which could be read for ever."""
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def find_picture(named: Path, wanted: str | None, folders: Sequence[Path], known: Fingerprints) -> Path | None:
    """The file of this name and hash in the folders, else any picture there with the hash; in the many pictures of a
    day only by the name. A whole path, as older pictures of ours hold it, counts without a hash.
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
    """Where a picture's files may be: beside it, in its output folder and in ours, beside ours, and where we are."""
    beside, output = picture.absolute().parent, output.absolute()
    kept = [place for root in (beside.parent, output) for place in (root / INPUTS, *_days(root))]
    return list(dict.fromkeys([beside, *kept, output.parent, Path.cwd()]))


def _days(output: Path) -> Iterable[Path]:
    return sorted(output.glob(DAY), reverse=True)


def find_model(folders: ModelFolders, kind: str, name: str) -> Path:
    """A model that a picture's text names. Raises ModelFileError, also for what is no file."""
    try:
        found = folders.find(kind, name)
    except (OSError, RuntimeError, ValueError) as error:  # a name that no file can have
        raise ModelFileError(f"{quoted(name)} cannot be the name of a model file.") from error
    if not is_there(found):
        raise ModelFileError(f"{quoted(name)} is not a model file.")
    return found
