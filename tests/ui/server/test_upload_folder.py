"""The folder for uploads: limited in size while the server runs, deleted afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.guard.guard import Guard
from tests.api.guard.asgi import Server, ask
from ui.server.upload_folder import PREFIX, VARIABLE, UploadFolder, make_upload_folder, sweep


def write(path: Path, size: int, *, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def age(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder, (time.time() - 9000, time.time() - 9000))


def test_old_uploads_make_room_and_young_ones_stay(tmp_path: Path) -> None:
    old, middle = write(tmp_path / "a" / "1.png", 40, age=9000), write(tmp_path / "b" / "2.png", 40, age=5000)
    young = write(tmp_path / "c" / "3.png", 15, age=10)
    folder = UploadFolder(tmp_path, most_bytes=100)
    assert folder.make_room(5) and old.exists()
    assert folder.make_room(30) and not old.exists() and middle.exists()
    assert not folder.make_room(90) and young.exists()
    status, _, body = ask(
        Server(), tmp_path, path="/gradio_api/upload", wall=Guard(Server(), UploadFolder(tmp_path, most_bytes=10))
    )
    assert status == 507 and b"full" in body


def test_room_is_reserved_for_pending_uploads(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path, most_bytes=100)
    assert folder.make_room(60) and not folder.make_room(60)
    folder.arrived(60)
    assert folder.make_room(60)


def test_the_folders_of_servers_that_are_gone_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process ids are no use here, because containers that share the folder have separate ids."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    dead, starting, foreign = (
        tmp_path / name for name in (f"{PREFIX}dead", f"{PREFIX}starting", "lightdiffusion-error-x")
    )
    for folder in (dead, starting, foreign):
        write(folder / "a" / "1.png", 4, age=9000)
    age(dead, foreign)
    alive = make_upload_folder()
    write(alive.path / "2.png", 4, age=9000)
    age(alive.path)
    assert not dead.exists() and starting.exists() and foreign.exists() and alive.path.parent == tmp_path
    monkeypatch.delenv(VARIABLE)
    other = make_upload_folder()
    assert (alive.path / "2.png").exists() and other.path != alive.path
    other.remove()
    assert not other.path.exists()
    sweep(tmp_path / "nowhere")


def test_a_server_that_was_killed_holds_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}killed"
    folder.mkdir()
    age(folder)
    script = "import os, sys, pathlib; from modules.core.files import lock_folder\n"
    script += "lock_folder(pathlib.Path(sys.argv[1])); print(flush=True); os.read(0, 1)"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        sweep(tmp_path)
        assert folder.exists()
        server.kill()
    sweep(tmp_path)
    assert not folder.exists()


def test_a_folder_that_the_environment_names_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    made = make_upload_folder()
    assert os.environ[VARIABLE] == str(made.path) and make_upload_folder().path == made.path
    make_upload_folder().remove()
    assert made.path.exists()
    made.remove()
    assert not made.path.exists()
