"""What the guard lets through to the API, in size and from which sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.guard.access import Access
from api.guard.gate import Gate
from api.guard.guard import STRANGER_BYTES, UPLOAD_BYTES, Guard
from tests.api.guard.asgi import Server, ask

KEY = {"authorization": "Bearer k"}
LOCKED = Gate(prefixes=("/api/",), access=Access(key="k"), origins=("http://localhost:3000",))


def call(server: Server, folder: Path, **asked: Any) -> tuple[int, bytes]:
    status, _, body = ask(server, folder, **{"path": "/api/x", **asked}, wall=Guard(server, gate=LOCKED))
    return status, body


def test_who_has_the_key_may_send_pictures(tmp_path: Path) -> None:
    server = Server()
    assert call(server, tmp_path, headers=KEY, pieces=(b"x" * 2**20,) * 30) == (200, b"done")
    status, body = call(server, tmp_path, headers={**KEY, "content-length": str(UPLOAD_BYTES + 1)})
    assert status == 413 and b"65 MB" in body and server.reached == 1
    assert call(server, tmp_path, headers=KEY, pieces=(b"x" * 2**20,) * 70)[0] == 413


def test_a_strangers_body_is_hardly_read(tmp_path: Path) -> None:
    server = Server()
    assert call(server, tmp_path, pieces=(b"x" * 2**14,) * 100)[0] == 413 and server.read <= STRANGER_BYTES


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        ("/api/x", "http://localhost:3000", 200),
        ("/api/x", "http://localhost:3001", 403),
        ("/api/x", "null", 403),
        ("/page", "http://localhost:3000", 403),
    ],
)
def test_another_site_may_call_the_api_only(tmp_path: Path, path: str, origin: str, status: int) -> None:
    headers = {**KEY, "origin": origin, "sec-fetch-site": "cross-site"}
    assert call(Server(), tmp_path, path=path, headers=headers)[0] == status


def test_without_prefixes_there_is_no_api() -> None:
    assert not Gate(origins=("http://x",)).welcomes("/sdapi/v1/x", {"origin": "http://x"})
