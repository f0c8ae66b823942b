"""Answers browsers that ask whether a page of another site may call the API (CORS)."""

from __future__ import annotations

from api.guard.asgi import Asgi, Message, Receive, Scope, Send, read_headers
from api.guard.gate import Gate

ANSWERED = b"access-control-"
METHODS = b"GET, POST"


class OtherSites:
    """ASGI middleware. The gate's other sites may call the API only, and never with the page's cookies."""

    def __init__(self, app: Asgi, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope)
        if scope["type"] != "http" or not self._gate.welcomes(scope["path"], headers):
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": preflight(headers)})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, allowing(headers["origin"], send))


def preflight(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    wanted = headers.get("access-control-request-headers", "")
    return [
        *allowance(headers["origin"]),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]


def allowance(origin: str) -> list[tuple[bytes, bytes]]:
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]


def allowing(origin: str, send: Send) -> Send:
    """Returns `send` with our headers in place of gradio's."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [item for item in message.get("headers", ()) if not item[0].lower().startswith(ANSWERED)]
            message = {**message, "headers": [*others, *allowance(origin)]}
        await send(message)

    return sending
