"""Hand-made requests to ASGI middleware, and a server behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api.guard.guard import Guard
from tests.ui.conftest import run_apart
from ui.server.upload_folder import UploadFolder

HOST = {"host": "localhost:7860"}


class Server:
    """Stands in for gradio: reads the whole body, then responds; `wrong` refuses logins."""

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
    client: str = "1.2.3.4",
) -> tuple[int, dict[str, str], bytes]:
    """Returns status, headers and body of the response."""
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting[-1]["more_body"] = False

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in {**HOST, **(headers or {})}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given, "app": server, "client": (client, 5)}
    run_apart((wall or Guard(server, UploadFolder(folder)))(scope, receive, send))
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(message.get("body", b"") for message in bodies)
