"""Manages the upload folder: one per server, limited in size, deleted when the server stops."""

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
KEPT_SECONDS = 3600  # younger files may still be in use by an open form
UNLOCKED_SECONDS = 60  # a younger folder may belong to a server that has not yet locked it


class UploadFolder:
    """The folder for gradio's uploads."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, *, is_ours: bool = False) -> None:
        """Manages `path`; with `is_ours` the folder was made for this server and is deleted with it."""
        self.path = path
        self._most_bytes = most_bytes
        self._is_ours = is_ours
        self._coming = 0  # bytes reserved for unfinished uploads
        self._lock = threading.Lock()

    def make_room(self, size: int) -> bool:
        """Reserves `size` bytes until `arrived` is called, and deletes the oldest files to make room.

        Returns false if the folder is full of files that may still be in use.
        """
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
        """Releases reserved bytes, once the upload is in the folder or has failed."""
        with self._lock:
            self._coming -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yields (modification time, bytes, path) for each file."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    path = Path(folder, name)
                    state = path.lstat()
                    yield state.st_mtime, state.st_size, path

    def remove(self) -> None:
        """Deletes the folder when the server stops."""
        if self._is_ours:
            shutil.rmtree(self.path, ignore_errors=True)


def make_upload_folder() -> UploadFolder:
    """Creates a folder, passes it to gradio in the environment, and locks it until this process ends.

    It first deletes the folders of stopped servers. A folder already set in the environment is the user's and is kept.
    """
    if chosen := os.environ.get(VARIABLE):
        return UploadFolder(Path(chosen))
    sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock_folder(folder)
    os.environ[VARIABLE] = str(folder)
    return UploadFolder(folder, is_ours=True)


def sweep(temporary: Path) -> None:
    """Deletes this user's upload folders, except those locked by a running server.

    Windows does not have such locks, and cleans its temporary folder itself.
    """
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
