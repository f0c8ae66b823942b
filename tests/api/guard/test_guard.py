"""Checks of request bodies and origins before gradio sees the request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api.guard import guard
from api.guard.guard import BODY_BYTES, STRANGER_BYTES, UPLOAD_BYTES, Guard, is_foreign
from tests.api.guard.asgi import HOST, Server, ask
from tests.ui.conftest import run_apart
from ui.server.upload_folder import UploadFolder


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


def trickle(wall: Any, path: str, *, pieces: int, size: int, seconds: float) -> tuple[int, int]:
    """Returns the status for a body that arrives in delayed pieces, and the number of pieces read."""
    sent: list[Any] = []
    count = 0

    async def receive() -> Any:
        nonlocal count
        await asyncio.sleep(seconds)
        count += 1
        return {"type": "http.request", "body": b"x" * size, "more_body": count < pieces}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "app": Server(), "client": None}
    run_apart(wall(scope, receive, send))
    return sent[0]["status"], count


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/login"])
def test_a_body_in_drops_is_given_up_and_a_slow_honest_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Checks that the time limit restarts with each piece, and that the limit for the whole body does not."""
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)
    wall = Guard(Server(), UploadFolder(tmp_path))
    status, count = trickle(wall, path, pieces=50, size=1, seconds=0.02)
    assert status == 408 and count < 10
    assert trickle(wall, path, pieces=15, size=1024, seconds=0.02) == (200, 15)


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost:7860"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        # behind a proxy, which uses its own host name
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
