"""Files are written completely or not at all: replaced, new, without hard links, and after killed programs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modules.core import files
from modules.core.files import STALE_SECONDS, sweep_hidden, write_new, write_whole

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from modules.core.files import hidden_file
with hidden_file(Path(sys.argv[1]), b"x") as hidden:
    print(hidden, flush=True)
    time.sleep(60)
"""


def make_old(path: Path) -> None:
    then = time.time() - STALE_SECONDS - 5
    os.utime(path, (then, then))


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    for data in (b"first", b"second"):
        write_whole(tmp_path / "settings.json", data)
        assert (tmp_path / "settings.json").read_bytes() == data
    assert os.listdir(tmp_path) == ["settings.json"]


def refuse_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    (tmp_path / "0").write_text("there before")
    made = [write_new(tmp_path, b"new", str) for _ in range(3)]
    assert [path.name for path in made] == ["1", "2", "3"]
    assert (tmp_path / "0").read_text() == "there before" and len(os.listdir(tmp_path)) == 4


def test_without_links_nothing_is_visible_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == []
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    assert write_new(tmp_path, b"picture", str).read_bytes() == b"picture"


def test_hidden_files_of_the_dead_are_swept_and_others_stay(tmp_path: Path) -> None:
    dead, young, visible = tmp_path / ".1-0a1b2c3d.tmp", tmp_path / ".2-0a1b2c3d.tmp", tmp_path / "x.tmp"
    for path in (dead, young, visible, tmp_path / ".hidden"):
        path.write_text("x")
        make_old(path)
    young.touch()
    os.utime(young)
    (tmp_path / ".3-0a1b2c3d.tmp").symlink_to(visible)
    sweep_hidden(tmp_path)
    assert not dead.exists() and young.exists() and visible.exists() and (tmp_path / ".hidden").exists()
    sweep_hidden(tmp_path / "nowhere")


OURS = (".4711-0a1b2c3d.tmp", ".0a1b2c3d.tmp", ".settings.json.0a1b2c3d.tmp", ".reserved-00001-7.png.tmp")
OTHERS = (".important.tmp", ".~lock.thesis.tmp", ".4711-draft.tmp", ".settings.json.tmp", ".x-0a1b2c3d.tmp.odt")


def test_hidden_files_of_other_programs_stay(tmp_path: Path) -> None:
    """The folder may be somebody's home folder."""
    for name in (*OURS, *OTHERS):
        (tmp_path / name).write_text("x")
        make_old(tmp_path / name)
    sweep_hidden(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(OTHERS)


@pytest.mark.skipif(os.name == "nt", reason="locks and signals of POSIX")
def test_a_file_that_somebody_still_writes_is_not_swept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        hidden = Path(writer.stdout.readline().strip())
        make_old(hidden)
        sweep_hidden(tmp_path)
        assert hidden.exists()
        writer.send_signal(signal.SIGKILL)
    sweep_hidden(tmp_path)
    assert not hidden.exists()


def test_where_folders_cannot_be_synced_the_file_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "not for folders")

    monkeypatch.setattr(files.os, "open", refuse)
    write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
