"""The types of ASGI, and small helpers for middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import PlainTextResponse, Response

from api.errors import Refusal

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

FORM = "refusal_form"  # in a scope: the function that writes a refusal
RESPONSE_HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


def read_headers(scope: Scope) -> dict[str, str]:
    """Returns headers by lower-case name; for a repeated header the last value counts, as in gradio."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}


def with_headers(send: Send) -> Send:
    """Adds headers that prevent other sites from showing the page in a frame."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", ())}
            added = [item for item in RESPONSE_HEADERS if item[0] not in given]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending


async def answer(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Sends the refusal and closes the connection, since the rest of the body is not read.

    It is one line of text, unless `scope` says how the client reads refusals (see api/own_form.py).
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    write = scope.get(FORM, plain)
    told = write(refusal)
    headers = [*told.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*headers, *RESPONSE_HEADERS]})
    await send({"type": "http.response.body", "body": told.body})


def plain(refusal: Refusal) -> Response:
    return PlainTextResponse(refusal.sentence + "\n")
