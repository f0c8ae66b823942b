"""Runs a local server that serves one file like Hugging Face, and can disconnect or send wrong data."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Remote:
    """The server's content and behaviour; `requests` lists the requests received."""

    data: bytes
    sha256: str
    size: int
    break_after: int | None = None
    pause: float = 0.0  # seconds between pieces
    ranges: bool = True
    status: int = 200
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


class Answer(BaseHTTPRequestHandler):
    """Describes the file at /resolve and redirects to /storage, as Hugging Face does."""

    remote: Remote

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        remote = self.remote
        remote.requests.append((self.command, self.path, self.headers.get("Range")))
        if remote.status != 200:
            self.send_error(remote.status)
        elif self.path == "/resolve":
            self.send_response(302)
            self.send_header("Location", f"{remote.url}/storage")
            self.send_header("X-Linked-Size", str(remote.size))
            self.send_header("X-Linked-ETag", f'"{remote.sha256}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file(body=body)

    def send_file(self, *, body: bool) -> None:
        remote, asked = self.remote, self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and remote.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(remote.data) - 1}/{len(remote.data)}")
        self.send_header("Content-Length", str(len(remote.data) - start))
        self.end_headers()
        if body:
            end = len(remote.data) if remote.break_after is None else start + remote.break_after
            step = 1 << 14 if remote.pause else len(remote.data)
            for begin in range(start, end, step):
                self.wfile.write(remote.data[begin : min(begin + step, end)])
                time.sleep(remote.pause)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(data: bytes) -> Iterator[Remote]:
    remote = Remote(data=data, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answer,), {"remote": remote}))
    server.handle_error = lambda request, address: None  # tests include clients that disconnect
    remote.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield remote
    server.shutdown()
    thread.join()
    server.server_close()
