"""Writes files atomically (the bytes go to a hidden file first, which is then renamed), and reads small texts."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from modules.core.errors import OptionsError, quoted

if os.name == "nt":
    fcntl = None
else:
    import fcntl

HIDDEN_ENDING = ".tmp"
# Names of our hidden files. Other programs may have hidden files in the same folder, which may be the user's home.
# The last two patterns are from earlier versions.
HIDDEN_NAMES = re.compile(r"\.(\d+-[0-9a-f]{8}|reserved-.+|[0-9a-f]{8}|settings\.json\.[0-9a-f]{8})\.tmp")
STALE_SECONDS = 60  # a younger hidden file may belong to a writer that has not locked it yet
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
LARGEST_TEXT = 16 << 20  # bytes


def read_text(path: Path, what: str) -> str:
    """Reads a UTF-8 file of at most 16 MB. Raises OptionsError, which begins with `what`."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise OptionsError(f"{what} {quoted(path)} is not a regular file.")
        with path.open("rb") as file:
            data = file.read(LARGEST_TEXT + 1)
    except OSError as error:
        raise OptionsError(f"{what} {quoted(path)} cannot be read ({error.strerror or error}).") from error
    if len(data) > LARGEST_TEXT:
        raise OptionsError(f"{what} {quoted(path)} is over {LARGEST_TEXT >> 20} MB large; shorten it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OptionsError(f"{what} {quoted(path)} is not UTF-8 text (line {line}); save it as UTF-8.") from error


def write_whole(path: Path, data: bytes) -> None:
    """Writes or replaces `path`. A crash leaves either the old bytes or the new ones. Raises OSError."""
    with hidden_file(path.parent, data) as hidden:
        os.replace(hidden, path)
        sync_folder(path.parent)


def replace_soon(path: Path, data: bytes) -> None:
    """Works like `write_whole` without waiting for the disk: if the whole machine crashes, the file may be empty."""
    with hidden_file(path.parent, data, synced=False) as hidden:
        os.replace(hidden, path)


def write_new(folder: Path, data: bytes, names: Callable[[int], str]) -> Path:
    """Writes `folder/names(0)`, or the first free one of names(1), names(2), ...; never replaces a file.

    Raises OSError.
    """
    with hidden_file(folder, data) as hidden:
        attempt = 0
        while not _publish(hidden, path := folder / names(attempt)):
            attempt += 1
        sync_folder(folder)
        return path


@contextmanager
def hidden_file(folder: Path, data: bytes, *, synced: bool = True) -> Generator[Path]:
    """Writes a hidden file, keeps it locked while in use, and deletes it afterwards unless it was moved."""
    hidden = folder / f".{os.getpid()}-{os.urandom(4).hex()}{HIDDEN_ENDING}"
    try:
        with open(hidden, "xb") as file:
            _lock(file.fileno())
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
            if fcntl is not None:  # the lock stays in place until the file has its final name
                yield hidden
        if fcntl is None:  # Windows cannot move an open file
            yield hidden
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)


def sweep_hidden(folder: Path) -> None:
    """Deletes hidden files left in this folder by killed processes. A file that is still being written is locked."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if HIDDEN_NAMES.fullmatch(entry.name):
                _sweep(Path(entry.path))


def sync_folder(folder: Path) -> None:
    """Flushes a new file name to disk, on systems that can do this for a folder."""
    if fcntl is None:
        return
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def lock_folder(folder: Path) -> int | None:
    """Locks a folder until the returned descriptor is closed or the process ends.

    Returns None if a running process, in this or another container, already has the lock, or if the system does not
    support such locks (Windows, some network disks).
    """
    if fcntl is None:
        return None
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(number)
        else:
            return number
    return None


def _publish(hidden: Path, path: Path) -> bool:
    """Renames the hidden file to its final name unless that name is taken."""
    if os.name == "nt":
        return _move_if_free(hidden, path)
    try:
        os.link(hidden, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _move_with_reservation(hidden, path)
    return True


def _move_if_free(hidden: Path, path: Path) -> bool:
    try:
        os.rename(hidden, path)  # fails on Windows if the name is taken
    except FileExistsError:
        return False
    return True


def _move_with_reservation(hidden: Path, path: Path) -> bool:
    """Works without hard links: the writer that creates the reservation (another hidden file) may take the name."""
    reservation = path.with_name(f".reserved-{path.name}{HIDDEN_ENDING}")
    try:
        number = os.open(reservation, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        _lock(number)
        if os.path.lexists(path):
            return False
        os.rename(hidden, path)
        return True
    finally:
        os.close(number)
        with suppress(OSError):
            reservation.unlink(missing_ok=True)


def _lock(number: int) -> None:
    """Locks the file if possible; on network file systems without locks, a stale file is recognised only by its age."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(path: Path) -> None:
    with suppress(OSError):
        if time.time() - path.lstat().st_mtime < STALE_SECONDS or path.is_symlink() or not path.is_file():
            return
        if fcntl is None:
            path.unlink()  # fails while the file is open
            return
        with open(path, "rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
