"""Requests to the real server that no browser sends: refused early, with a sentence and no traceback in the log."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import pytest

from tests.ui.conftest import Served, running_app

BODIES = (
    *("{", "[]", "3", '{"data": 3}', '{"data": []}', '{"data": [1, 2, 3]}', "[" * 50_000, "\xff"),
    *("", "null", "{}", '{"data": {"x": 1}}', '{"fn_index": "x"}', '{"data": ["p", 5, {}, [], true], "event_id": {}}'),
    *('{"data": [], "fn_index": 99999, "session_hash": "s"}', '{"data": [], "fn_index": 1e400}'),
    *('{"data": "\\ud800"}', '{"component_id": 99999, "fn_name": "x", "data": [], "session_hash": "x"}'),
)
KINDS = ("application/json", "multipart/form-data", "x")
ROUTES = (
    *("call/text_to_image", "call/nosuch", "call/v2/text_to_image", "call/v2/nosuch", "run/predict", "run/models"),
    *("queue/join", "cancel", "reset", "component_server", "stream/x", "upload", "process_recording", "vibe-edit"),
)
UPLOADS = (
    ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n'),
    ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx'),
    ("multipart/form-data; boundary=" + "b" * 9000, b"x"),
)


def hostile_models(folder: Path) -> None:
    """Makes bad model files that the page must cope with."""
    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    facts = {"native_size": "x", "description": "<img src=x onerror=alert(1)>\0\n"}
    for name, header in (("size", facts), ("list", [])):
        data = json.dumps({"__metadata__": {"lightdiffusion": json.dumps(header)}}).encode()
        (checkpoints / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    Path(os.fsdecode(os.fsencode(checkpoints) + b"/\xff.safetensors")).write_bytes(b"")
    (checkpoints / "broken.safetensors").symlink_to("/nowhere")
    (checkpoints / "loop.safetensors").symlink_to("loop.safetensors")
    os.mkfifo(checkpoints / "pipe.safetensors")
    (folder / "settings.json").write_text('{"steps": ' + "[" * 5000)
    day = folder / "output" / "2020-01-01"
    day.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(day) + b"/\xff.png")).write_bytes(b"")


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("open")
    hostile_models(folder)
    with running_app(folder, {}) as served:
        yield served


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running_app(tmp_path_factory.mktemp("closed"), {}, auth="me:secret", listen="127.0.0.1") as served:
        yield served


def test_the_page_starts_beside_any_file(open_server: Served) -> None:
    page = httpx.get(open_server.url)
    assert page.status_code == 200 and "<img src=x" not in page.text
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert open_server.handlers.history.paths() == []
    assert "size.safetensors" in open_server.handlers.folders.list("checkpoints")


def test_calls_that_make_no_sense_are_answered_without_a_traceback(
    open_server: Served, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with httpx.Client(base_url=f"{open_server.url}gradio_api/", timeout=20) as client:
        for route in ROUTES:
            for body, kind in product(BODIES, KINDS):
                answer = client.post(route, content=body.encode("latin-1"), headers={"content-type": kind})
                assert (answer.text or answer.status_code == 404) and "Traceback" not in answer.text, (route, body[:40])
        for kind, body in UPLOADS:
            answer = client.post("upload", content=body, headers={"content-type": kind})
            assert answer.text.strip() and "Traceback" not in answer.text
    assert "Traceback" not in capfd.readouterr().err
    assert caplog.messages and all(message.isprintable() and len(message) < 300 for message in caplog.messages)
    assert not any(record.exc_info for record in caplog.records)


def in_pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * 65536


@pytest.mark.parametrize("route", ["gradio_api/queue/join", "gradio_api/upload", "login"])
def test_strangers_send_little(closed_server: Served, route: str) -> None:
    kinds = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(closed_server.url + route, content=b"x" * 3_000_000, headers=kinds)
    assert answer.status_code == 413 and answer.text == "The request is too large: at most 64 KB are allowed.\n"
    assert httpx.post(closed_server.url + route, content=in_pieces(320), headers=kinds).status_code in (400, 401, 413)


def test_other_sites_upload_nothing(open_server: Served) -> None:
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        answer = httpx.post(f"{open_server.url}gradio_api/upload", files={"files": b"x"}, headers=headers)
        assert answer.status_code == 403 and "another site" in answer.text
    assert httpx.post(f"{open_server.url}gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 200


def test_wrong_logins_wait(closed_server: Served) -> None:
    def log_in(password: str) -> tuple[int, float]:
        """Returns the status and the seconds taken."""
        began = time.monotonic()
        answer = httpx.post(f"{closed_server.url}login", data={"username": "me", "password": password}, timeout=30)
        return answer.status_code, time.monotonic() - began

    assert log_in("secret")[0] == 200
    wrong = [log_in(password) for password in ("a", "b", "c")]
    assert [status for status, _ in wrong] == [400, 400, 400] and wrong[2][1] >= 1.0 > wrong[0][1]
    assert log_in("secret")[0] == 200


@pytest.mark.parametrize("path", ["static/" + "A" * 3000, "assets/" + "A" * 3000])
def test_what_breaks_gradio_tells_strangers_no_paths(closed_server: Served, path: str) -> None:
    answer = httpx.get(closed_server.url + path)
    assert answer.status_code == 500
    assert answer.text == "The request failed; the program's log says why.\n"
