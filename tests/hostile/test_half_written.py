"""Writing that fails or is killed at each of its system calls in turn: complete files or none, and one sentence."""

from __future__ import annotations

import builtins
import errno
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.report_file import write_report
from modules.core.errors import OutputError
from modules.core.files import HIDDEN_ENDING, STALE_SECONDS, sweep_hidden
from modules.gallery.output import LAST_SEED, OutputFolder
from modules.gallery.picture import Picture
from modules.images.save import save_png
from modules.stable_fast import Report
from ui.settings import SettingsFile

resource = pytest.importorskip("resource", reason="limits of POSIX")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and signals of POSIX")

CALLS = ("open", "fsync", "link", "replace", "rename", "unlink", "mkdir", "listdir", "close", "scandir")
MOST_CALLS = 60
PICTURE = Image.effect_noise((48, 48), 60).convert("RGB")
KILLS = 32


@contextmanager
def failing_at(number: int, act: Callable[[str], None], *, links: bool) -> Iterator[list[str]]:
    """Runs `act` at the system call with this number; yields the names of the calls so far.

    It counts this thread's calls only, because servers of other tests may run in threads beside it.
    """
    made: list[str] = []
    this = threading.get_ident()

    def wrapped(name: str, original: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != this:
                return original(*arguments, **named)
            made.append(name)
            if len(made) == number:
                act(name)
            if name == "link" and not links:
                raise OSError(errno.EPERM, "no hard links here")
            return original(*arguments, **named)

        return call

    originals = {name: getattr(os, name) for name in CALLS}
    opened = builtins.open
    for name, original in originals.items():
        setattr(os, name, wrapped(name, original))
    builtins.open = wrapped("builtin open", opened)
    try:
        yield made
    finally:
        builtins.open = opened
        for name, original in originals.items():
            setattr(os, name, original)


def refusing(number: int) -> Callable[[str], None]:
    def act(name: str) -> None:
        raise OSError(number, os.strerror(number))

    return act


def killing(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked child; returns the signal that killed the child, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] & 0x7F


def whole_pictures(folder: Path) -> int:
    """Counts the visible pictures, after checking that each one loads and is not empty."""
    paths = [path for path in folder.rglob("*.png") if not path.name.startswith(".")]
    for path in paths:
        assert path.stat().st_size > 0, path
        with Image.open(path) as image:
            image.load()
    return len(paths)


def hidden_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


def age(folder: Path) -> None:
    then = time.time() - STALE_SECONDS - 5
    for path in hidden_files(folder):
        os.utime(path, (then, then))


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EPERM, errno.EIO])
def test_a_picture_is_saved_or_refused_whichever_call_fails(tmp_path: Path, error: int, *, links: bool) -> None:
    before = 0
    for number in range(1, MOST_CALLS):
        try:
            with failing_at(number, refusing(error), links=links) as made:
                path = save_png(PICTURE, tmp_path, 7, "text")
            assert path.exists()
        except OutputError as refusal:
            assert str(refusal).isprintable()
        after = whole_pictures(tmp_path)
        assert after in (before, before + 1)
        before = after
        if len(made) < number:
            break
    else:
        pytest.fail("it makes more calls than are tried")
    assert before > 2


@pytest.mark.parametrize("links", [True, False])
def test_a_picture_is_whole_or_not_there_whichever_call_is_the_last(tmp_path: Path, *, links: bool) -> None:
    def save(number: int) -> None:
        with failing_at(number, killing, links=links):
            save_png(PICTURE, tmp_path, 7, "text")

    for number in range(1, MOST_CALLS):
        ended = in_child(lambda number=number: save(number))
        whole_pictures(tmp_path)
        age(tmp_path)
        for folder in [path for path in tmp_path.iterdir() if path.is_dir()]:
            sweep_hidden(folder)
        assert hidden_files(tmp_path) == []
        if ended == 0:
            break
    assert ended == 0 and whole_pictures(tmp_path) > 1


@pytest.mark.parametrize("room", [0, 1, 100, 4000])
def test_a_file_that_ends_in_the_middle_of_its_bytes_is_never_seen(tmp_path: Path, room: int) -> None:
    """The system accepts only `room` bytes of a file."""
    old, output = Report(asked="full", level="fused"), tmp_path / "out"
    save_png(PICTURE, output, 7)
    write_report(tmp_path / "report.txt", old)
    before = (tmp_path / "report.txt").read_bytes()

    def write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        new = Report(asked="full", level="off", reason="x" * 5000)
        for work in (lambda: save_png(PICTURE, output, 8), lambda: write_report(tmp_path / "report.txt", new)):
            try:
                work()
            except OutputError:
                os.write(refused, b"x")

    reader, refused = os.pipe()
    assert in_child(write) == 0
    assert os.read(reader, 9) == b"xx"
    assert whole_pictures(output) == 1 and (tmp_path / "report.txt").read_bytes() == before
    assert hidden_files(tmp_path) == []


def test_a_home_as_output_folder_keeps_its_hidden_files(tmp_path: Path) -> None:
    names = (".draft.tmp", "Documents/.4711-0a1b2c3d.tmp", "2026-01-02/.draft.tmp")
    for path in (tmp_path / name for name in names):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    age(tmp_path)
    OutputFolder(tmp_path).check_writable()
    assert all((tmp_path / name).exists() for name in names)


@pytest.mark.parametrize("act", [refusing(errno.ENOSPC), killing], ids=["full", "killed"])
def test_settings_and_seed_are_the_old_or_the_new(tmp_path: Path, act: Callable[[str], None]) -> None:
    """Also checks that a picture is saved even if its seed could not be recorded."""
    settings, output = SettingsFile(tmp_path / "settings.json", tmp_path), OutputFolder(tmp_path / "out")
    picture = Picture(image=PICTURE, seed=7, request_seed=7, parameters="")
    fresh = {"prompt": "x", "steps": 20}
    settings.save({"prompt": "old", "steps": 1})
    output.save(picture)

    def write(number: int) -> None:
        with failing_at(number, act, links=True):
            for work in (lambda: settings.save({"prompt": "new", "steps": 2}), lambda: output.save(picture)):
                try:
                    work()
                except OutputError:
                    pass

    with failing_at(0, act, links=True) as undisturbed:
        settings.save({"prompt": "old", "steps": 1})
        output.save(picture)
    assert 10 < len(undisturbed) < MOST_CALLS
    for number in range(1, len(undisturbed) + 1):
        in_child(lambda number=number: write(number))
        assert settings.load(fresh) in ({"prompt": "old", "steps": 1}, {"prompt": "new", "steps": 2})
        assert output.last_seed() == 7 and (output.folder / LAST_SEED).stat().st_size > 0
    whole_pictures(output.folder)


def test_kill_9_at_any_moment_leaves_whole_pictures_only(tmp_path: Path) -> None:
    """Numbers also continue: no later picture replaces an earlier one."""
    generator = random.Random(9)
    reader, saved = os.pipe()

    def save_on() -> None:
        for _ in range(1000):
            save_png(PICTURE, tmp_path, 7, "text")
            os.write(saved, b"x")

    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                save_on()
            finally:
                os._exit(0)
        os.read(reader, 1000)  # a child on a busy machine may take long to begin
        time.sleep(generator.uniform(0.0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert whole_pictures(tmp_path) >= KILLS
    names = [path.name for path in tmp_path.rglob("*.png") if not path.name.startswith(".")]
    numbers = [int(name.split("-")[0]) for name in names]
    assert len(set(numbers)) == len(numbers)
    age(tmp_path)
    OutputFolder(tmp_path).check_writable()
    assert [path for path in hidden_files(tmp_path) if path.name.endswith(HIDDEN_ENDING)] == []


def test_foreign_file_names_do_not_stop_saving(tmp_path: Path) -> None:
    day = save_png(PICTURE, tmp_path, 7).parent
    for name in ("9" * 249 + "-1", "٣٣-1.png", "-", "0-", "00007-x"):
        (day / name).touch()
    (day / "00009-folder").mkdir()
    assert save_png(PICTURE, tmp_path, 7).name == "00010-7.png"
