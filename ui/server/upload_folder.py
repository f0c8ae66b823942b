"""The folder that uploads go to: one for each server, bounded while it runs, gone when it has ended."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from modules.core.files import lock_folder

VARIABLE = "GRADIO_TEMP_DIR"
PREFIX = "lightdiffusion-uploads-"
MOST_BYTES = 2 * 1024**3
KEPT_SECONDS = 3600  # a form that is open may still use what is younger
UNLOCKED_SECONDS = 60  # a younger folder may belong to a server that has not locked it yet


class UploadFolder:
    """Where gradio keeps what browsers send it."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, *, is_ours: bool = False) -> None:
        """`is_ours`: it was made for this server, and goes with it."""
        self.path = path
        self._most_bytes = most_bytes
        self._is_ours = is_ours
        self._coming = 0  # bytes that have been promised room and are not here yet
        self._lock = threading.Lock()

    def make_room(self, size: int) -> bool:
        """Keeps room for `size` bytes until they have `arrived`, and deletes the oldest files for it; false where those
        that may still be used fill the folder."""
        with self._lock:
            files = sorted(self._files())
            total = sum(length for _, length, _ in files) + self._coming + size
            for modified, length, path in files:
                if total <= self._most_bytes or time.time() - modified < KEPT_SECONDS:
                    break
                with suppress(OSError):
                    path.unlink()
                    total -= length
            has_room = total <= self._most_bytes
            self._coming += size if has_room else 0
            return has_room

    def arrived(self, size: int) -> None:
        """What was promised room is among the files now, or does not come."""
        with self._lock:
            self._coming -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time of writing, bytes, path) of each file."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    path = Path(folder, name)
                    state = path.lstat()
                    yield state.st_mtime, state.st_size, path

    def remove(self) -> None:
        """At the server's end."""
        if self._is_ours:
            shutil.rmtree(self.path, ignore_errors=True)


def make_upload_folder() -> UploadFolder:
    """A new folder, named to gradio by the environment and locked until this process ends; those of servers that are
    gone are deleted first. A folder that the environment names already is somebody's choice and stays."""
    if chosen := os.environ.get(VARIABLE):
        return UploadFolder(Path(chosen))
    sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock_folder(folder)
    os.environ[VARIABLE] = str(folder)
    return UploadFolder(folder, is_ours=True)


def sweep(temporary: Path) -> None:
    """Deletes the upload folders that no living server has locked, as far as they are this user's. Windows knows no
    such locks, and cleans its folder of temporary files itself."""
    with suppress(OSError):
        for entry in os.scandir(temporary):
            is_one = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
            if is_one and time.time() - entry.stat().st_mtime > UNLOCKED_SECONDS:
                sweep_one(Path(entry.path))


def sweep_one(folder: Path) -> None:
    lock = lock_folder(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
