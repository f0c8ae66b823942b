"""Picture files: names, embedded text, several processes at once, and full or failing disks."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from modules.core import files
from modules.core.errors import OptionsError, OutputError
from modules.images import save
from modules.images.save import read_parameters, save_png

PICTURE = Image.new("RGB", (8, 8), (10, 200, 30))
WRITER = """
import sys
from PIL import Image
from modules.images.save import save_png
picture = Image.effect_noise((64, 64), 50).convert("RGB")
for _ in range(int(sys.argv[2])):
    print(save_png(picture, sys.argv[1], 7, "text"), flush=True)
"""


def start_writer(folder: Path, count: int, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


def test_name_text_and_pixels(tmp_path: Path) -> None:
    path = save_png(PICTURE, tmp_path, 42, "a\nSteps: 1, Seed: 42, Size: 8x8")
    assert path == tmp_path / date.today().isoformat() / "00001-42.png"
    with Image.open(path) as read:
        assert read.getpixel((3, 3)) == (10, 200, 30)
    assert read_parameters(path) == "a\nSteps: 1, Seed: 42, Size: 8x8"


@pytest.mark.parametrize("text", ["日本語 🎨", "latin é", "broken \udcff argument", "x" * 300_000])
def test_any_text_is_stored(tmp_path: Path, text: str) -> None:
    expected = text.encode("utf-8", "replace").decode("utf-8")
    assert read_parameters(save_png(PICTURE, tmp_path, 1, text)) == expected


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    day = save_png(PICTURE, tmp_path, 1).parent
    (day / "00041-9.png").touch()
    (day / "notes.txt").touch()
    assert save_png(PICTURE, tmp_path, 1).name == "00042-1.png"
    (day / "99999-9.png").touch()
    assert save_png(PICTURE, tmp_path, 1).name == "100000-1.png"
    assert save_png(PICTURE, tmp_path, 1).name == "100001-1.png"


def test_the_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_png(PICTURE, tmp_path, 1)
    finally:
        os.umask(before)
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o640


def test_processes_at_once_never_share_a_name(tmp_path: Path, project_root: Path) -> None:
    writers = [start_writer(tmp_path, 15, project_root) for _ in range(4)]
    paths = [line for writer in writers for line in writer.communicate(timeout=120)[0].split("\n") if line]
    assert len(paths) == 60 and len(set(paths)) == 60
    assert sorted(paths) == sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    for path in paths:
        assert Image.open(path).size == (64, 64)


def test_a_name_taken_in_the_last_moment_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = save_png(PICTURE, tmp_path, 7).parent
    monkeypatch.setattr(save, "_last_number", lambda folder: 0)  # the number before the other process wrote 00001-7
    assert save_png(PICTURE, tmp_path, 7) == day / "00002-7.png"


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_killed_process_leaves_no_half_picture(tmp_path: Path, project_root: Path) -> None:
    writer = start_writer(tmp_path, 100_000, project_root)
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    pictures = list(tmp_path.rglob("*.png"))
    assert len(pictures) >= 5
    for path in pictures:
        Image.open(path).load()


class RefusingFile:
    """A file whose disk fills up after some bytes."""

    def __init__(self, path: Path, error: int) -> None:
        self._file, self._error = open(path, "xb"), error  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> RefusingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, data: bytes) -> int:
        self._file.write(data[: len(data) // 2])
        raise OSError(self._error, os.strerror(self._error))


@pytest.mark.parametrize(
    ("error", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "No permission"), (errno.EIO, "could not be written")],
)
def test_a_refusing_disk_is_explained_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, words: str
) -> None:
    monkeypatch.setattr(files, "open", lambda path, mode: RefusingFile(path, error), raising=False)
    with pytest.raises(OutputError, match=words) as caught:
        save_png(PICTURE, tmp_path, 1)
    assert "\n" not in str(caught.value) and "--output-dir" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOTSUP])
def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    names = [save_png(PICTURE, tmp_path, 7, "t").name for _ in range(2)]
    assert names == ["00001-7.png", "00002-7.png"]
    monkeypatch.setattr(save, "_last_number", lambda folder: 0)
    assert save_png(PICTURE, tmp_path, 7).name == "00003-7.png"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="file is in the way"):
        save_png(PICTURE, tmp_path / "out", 1)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_protected_folder_is_explained(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=f"No permission to write to {re.escape(str(tmp_path))}"):
        save_png(PICTURE, tmp_path, 1)
    tmp_path.chmod(0o700)


def test_mkdir_refused_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="No permission to write to"):
        save_png(PICTURE, tmp_path / "new", 1)


def test_reading_a_picture_without_text_is_explained(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "bare.png")
    with pytest.raises(OptionsError, match=r"bare\.png. holds no generation text"):
        read_parameters(tmp_path / "bare.png")
