"""Requests before gradio sees them: bodies, origins, logins, and the folder for uploads."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from tests.ui.conftest import run_apart
from ui.server import guard
from ui.server.guard import BODY_BYTES, STRANGER_BYTES, UPLOAD_BYTES, Guard, Logins, is_foreign
from ui.server.quiet_errors import OneLine
from ui.server.upload_folder import UploadFolder, make_upload_folder, sweep

HOST = {"host": "localhost:7860"}


class Server:
    """Stands in for gradio: reads the whole body, then answers; `wrong` refuses logins."""

    def __init__(self, *, auth: Any = None) -> None:
        self.auth, self.tokens, self.cookie_id = auth, {"token": "me"}, "id"
        self.read, self.reached, self.wrong = 0, 0, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached += 1
        while True:
            message = await receive()
            self.read += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        status = 400 if self.wrong else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def ask(
    server: Any,
    folder: Path,
    *,
    path: str = "/gradio_api/queue/join",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    pieces: tuple[bytes, ...] = (b"{}",),
    wall: Any = None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer."""
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting[-1]["more_body"] = False

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in {**HOST, **(headers or {})}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given, "app": server, "client": ("1.2.3.4", 5)}
    run_apart((wall or Guard(server, UploadFolder(folder)))(scope, receive, send))
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(message.get("body", b"") for message in bodies)


def test_an_ordinary_request_passes_and_stays_out_of_frames(tmp_path: Path) -> None:
    status, headers, body = ask(Server(), tmp_path)
    assert (status, body) == (200, b"done")
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("auth", "cookie", "path", "limit"),
    [
        (None, "", "/gradio_api/queue/join", BODY_BYTES),
        (None, "", "/gradio_api/upload", UPLOAD_BYTES),
        ({"me": "x"}, "", "/gradio_api/upload", STRANGER_BYTES),
        ({"me": "x"}, "", "/login", STRANGER_BYTES),
        ({"me": "x"}, "access-token-id=wrong", "/gradio_api/upload", STRANGER_BYTES),
        ({"me": "x"}, "access-token-id=token", "/gradio_api/upload", UPLOAD_BYTES),
        ({"me": "x"}, "access-token-unsecure-id=token", "/gradio_api/queue/join", BODY_BYTES),
    ],
)
def test_a_body_is_limited_before_it_is_read(tmp_path: Path, auth: Any, cookie: str, path: str, limit: int) -> None:
    asked = {"path": path, "headers": {"cookie": cookie, "content-length": str(limit + 1)}}
    server = Server(auth=auth)
    status, _, body = ask(server, tmp_path, **asked)
    assert status == 413 and b"too large" in body and server.reached == 0
    asked["headers"]["content-length"] = str(limit)
    assert ask(server, tmp_path, **asked)[0] == 200


def test_a_body_of_unknown_length_is_cut_off(tmp_path: Path) -> None:
    server = Server()
    status, _, body = ask(server, tmp_path, pieces=(b"x" * 2**20,) * 50)
    assert status == 413 and b"2 MB" in body and server.read <= BODY_BYTES


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 400, "²", "x"])
def test_a_senseless_length_is_not_believed(tmp_path: Path, length: str) -> None:
    headers = {"content-length": length.encode("utf-8").decode("latin-1")}
    assert ask(Server(), tmp_path, headers=headers, pieces=(b"x" * 2**20,) * 3)[0] == 413


def test_a_slow_body_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "app": Server(), "client": None}
    run_apart(Guard(Server(), UploadFolder(tmp_path))(scope, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost:7860"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        # behind a proxy, which asks by its own name
        ({"origin": "https://pictures.example", "sec-fetch-site": "same-origin"}, False),
        # a header that gradio lets any site set
        ({"origin": "https://pictures.example", "x-forwarded-host": "pictures.example"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "http://localhost:8000"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://[bad"}, True),
        ({"origin": ""}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:8000"}, True),
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/login"])
def test_foreign_origins_are_refused_on_every_post(
    tmp_path: Path, headers: dict[str, str], path: str, *, foreign: bool
) -> None:
    server = Server()
    status, _, body = ask(server, tmp_path, path=path, headers=headers)
    assert (status == 403) is foreign and (server.reached == 0) is foreign
    assert is_foreign({**HOST, **headers}) is foreign and (b"another site" in body) is foreign


def test_looking_is_free(tmp_path: Path) -> None:
    assert ask(Server(), tmp_path, method="GET", headers={"origin": "http://evil.example"})[0] == 200


def test_wrong_logins_wait_longer_and_a_right_one_forgives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(guard.asyncio, "sleep", sleep)
    monkeypatch.setattr(guard.time, "monotonic", lambda: sum(waits))
    server = Server(auth={"me": "x"})
    wall = Guard(server, UploadFolder(tmp_path))
    server.wrong = True
    for _ in range(8):
        assert ask(server, tmp_path, path="/login", wall=wall)[0] == 400
    server.wrong = False
    ask(server, tmp_path, path="/login", wall=wall)
    ask(server, tmp_path, path="/login", wall=wall)
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 0.0]


def test_many_logins_at_once_wait_one_behind_the_other(tmp_path: Path) -> None:
    logins = Logins()
    waits = [logins.begin("1.2.3.4") for _ in range(1000)]
    taken = [wait for wait in waits if wait is not None]
    assert taken == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5], abs=0.2)
    assert logins.begin("5.6.7.8") == 0 and Logins(OrderedDict({"1.2.3.4": (5000, 0.0)})).begin("1.2.3.4") == 8
    server = Server(auth={"me": "x"})
    wall = Guard(server, UploadFolder(tmp_path))
    wall._logins = logins
    status, _, body = ask(server, tmp_path, path="/login", wall=wall)
    assert status == 429 and b"wait a minute" in body and server.reached == 0


def test_the_memory_of_wrong_logins_is_bounded() -> None:
    logins = Logins()
    for number in range(5000):
        logins.begin(str(number))
    assert len(logins.wrong) == guard.MOST_CLIENTS and logins.begin("4999") > 0


def write(path: Path, size: int, *, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


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


def test_room_is_kept_for_what_is_on_its_way(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path, most_bytes=100)
    assert folder.make_room(60) and not folder.make_room(60)
    folder.arrived(60)
    assert folder.make_room(60)


@pytest.mark.parametrize("begun", [False, True])
def test_what_breaks_gradio_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, begun: bool) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("a\n" * 500)

    status, _, body = ask(broken, tmp_path, wall=OneLine(broken))
    assert (status, body) == (200, b"") if begun else (status == 500 and body.count(b"\n") == 1)
    assert len(caplog.messages) == 1 and len(caplog.messages[0]) < 300 and caplog.messages[0].isprintable()
    assert caplog.records[0].exc_info is None


def test_upload_folders_of_dead_servers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    dead, alive = tmp_path / "lightdiffusion-999999999-abc", tmp_path / f"lightdiffusion-{os.getpid()}-abc"
    other = tmp_path / "lightdiffusion-error-x"
    for folder in (dead, alive, other):
        folder.mkdir()
    made = make_upload_folder()
    assert not dead.exists() and alive.exists() and other.exists() and made.path.parent == tmp_path
    assert os.environ["GRADIO_TEMP_DIR"] == str(made.path)
    assert make_upload_folder().path == made.path
    make_upload_folder().remove()  # named by the environment: somebody's choice
    assert made.path.exists()
    made.remove()
    assert not made.path.exists()
    sweep(tmp_path / "nowhere")
