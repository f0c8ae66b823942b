"""Connections that send nothing: closed after a while, and sooner if there are many."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from api.guard import connections
from api.guard.connections import Patient
from tests.ui.conftest import free_port

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "


async def answering(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        if scope["path"] == "/long":
            await receive()
            await receive()  # until the client leaves
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    number = free_port()
    server = uvicorn.Server(uvicorn.Config(answering, port=number, http=Patient, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.force_exit = server.should_exit = True
    thread.join(10)


def dial(port: int, data: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=5)
    line.sendall(data)
    return line


def ask(line: socket.socket) -> bytes:
    line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"ok") and (piece := line.recv(1000)):
        answer += piece
    return answer


@pytest.mark.parametrize("data", [b"", b"G", HALF])
def test_what_sends_no_whole_request_is_closed(port: int, data: bytes) -> None:
    with dial(port, data) as line:
        assert line.recv(100) == b""


def test_drops_between_two_requests_do_not_keep_it_open(port: int) -> None:
    with dial(port) as line:
        assert b"200" in ask(line)
        line.sendall(HALF)
        assert line.recv(100) == b""


def test_what_is_being_answered_stays_open(port: int) -> None:
    with dial(port, b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n") as line:
        line.settimeout(0.7)
        with pytest.raises(TimeoutError):
            line.recv(100)


def test_the_most_silent_one_makes_room(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENT_SECONDS", 60)
    lines = []
    for _ in range(3):
        lines.append(dial(port))
        time.sleep(0.05)
    assert b"200" in ask(lines[0])  # now the second has been silent the longest
    with dial(port) as newest:
        assert b"200" in ask(newest) and b"200" in ask(lines[0]) and b"200" in ask(lines[2])
        assert lines[1].recv(100) == b""
    for line in lines:
        line.close()


def test_the_number_follows_what_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((256, 85), (1024, 341), (10**6, 1000), (connections.resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, files=files: (files, files))
        assert connections.most_connections() == most
