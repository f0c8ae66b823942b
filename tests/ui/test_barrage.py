"""The real server under calls that make no sense: every one is answered, and the log holds no traceback."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from tests.ui.conftest import Served

PATHS = (
    *("run/text_to_image", "run/nothing", "call/text_to_image", "call/image_to_image", "call/nothing"),
    *("queue/join", "queue/data", "upload", "reset", "component_server", "stream/x", "cancel"),
)
BODIES: tuple[Any, ...] = (
    *(None, [], {}, "x", 1, {"data": None}, {"data": 5}, {"data": []}, {"data": [None] * 40}, {"data": {"x": 1}}),
    *({"fn_index": 10**9, "data": []}, {"fn_index": "x"}, {"fn_index": 1, "data": [], "session_hash": [1]}),
    *({"data": ["p", 5, {}, [], True]}, {"event_id": {}}, {"data": [[[[[]]]]]}),
)


def test_bad_calls_are_answered_without_a_traceback(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(3)
    with httpx.Client(base_url=f"{served.url.rstrip('/')}/gradio_api/", timeout=30) as client:
        for path in PATHS:
            for body in generator.sample(BODIES, 8):
                assert client.post(path, json=body).status_code < 600
            for content in (b"", b"{", b"\xff" * 50, b"[" * 100_000):
                headers = {"content-type": generator.choice(("application/json", "multipart/form-data", "x"))}
                assert client.post(path, content=content, headers=headers).status_code < 600
    for ticket in served.handlers.queue.unfinished():  # some calls were sound, and would disturb the tests that follow
        ticket.cancel.cancel()
        ticket.wait(60)
    told = capfd.readouterr()
    assert "Traceback" not in told.err + told.out, told.err[-3000:]


def test_a_large_body_and_another_site_are_refused(served: Served) -> None:
    url = f"{served.url.rstrip('/')}/gradio_api/"
    assert httpx.post(f"{url}queue/join", content=b"x" * 3 * 2**20).status_code == 413
    foreign = {"origin": "http://evil.example"}
    files = {"files": ("a.png", b"x")}
    assert httpx.post(f"{url}upload", files=files, headers=foreign).status_code == 403
    assert httpx.post(f"{url}queue/join", json={}, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    answer = httpx.get(served.url)
    assert answer.status_code == 200 and answer.headers["content-security-policy"] == "frame-ancestors 'none'"
