"""Guards gradio: limits request bodies, rejects foreign origins, and delays logins after a failed one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from ui.server.logins import Logins, network_of
from ui.server.upload_folder import UploadFolder

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
STRANGER_BYTES = 64 * 1024  # for requests before the login, such as the login itself
BODY_BYTES = 2 * 1024**2
UPLOAD_BYTES = 65 * 1024**2  # a 64 MiB file plus multipart overhead
BODY_SECONDS = 30  # the wait for the next piece of a body, and the total wait beyond the time allowed by SLOWEST
SLOWEST = 16 * 1024  # bytes per second
RESPONSE_HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Refusal:
    """A response sent in place of gradio's."""

    status: int
    text: str


FOREIGN = Refusal(403, "This request comes from another site and was refused.")
SLOW = Refusal(408, "The request was too slow and was dropped.")
IMPATIENT = Refusal(429, "There were too many login attempts at once; wait a minute.")
NO_ROOM = Refusal(507, "The folder for uploads is full; try again in an hour, or restart the program.")


def too_large(limit: int) -> Refusal:
    size = f"{limit // 1024**2} MB" if limit >= 1024**2 else f"{limit // 1024} KB"
    return Refusal(413, f"The request is too large: at most {size} are allowed.")


class Guard:
    """ASGI middleware around gradio's app."""

    def __init__(self, app: Asgi, uploads: UploadFolder) -> None:
        self._app = app
        self._uploads = uploads
        self._logins = Logins()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = read_headers(scope)
        method = scope.get("method", "POST")  # a websocket may make changes, too
        if method not in SAFE_METHODS and is_foreign(headers):
            await answer(scope, send, FOREIGN)
        elif method in SAFE_METHODS or scope["type"] == "websocket":
            await self._app(scope, receive, with_headers(send))
        else:
            await self._pass_body(scope, headers, receive, send)

    async def _pass_body(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/")
        is_upload = path.endswith("/upload")
        limit = body_limit(scope, headers, is_upload=is_upload)
        declared = headers.get("content-length", "")
        size = int(declared) if declared.isascii() and declared.isdecimal() and len(declared) < 20 else 0
        if size > limit or len(declared) >= 20:
            await answer(scope, send, too_large(limit))
            return
        body = Body(receive, send, limit)
        if is_upload:
            await self._upload(scope, body, size or limit)
        elif path.endswith("/login"):
            await self._log_in(scope, body)
        else:
            await self._app(scope, body.receive, body.send)

    async def _upload(self, scope: Scope, body: Body, size: int) -> None:
        if not await asyncio.to_thread(self._uploads.make_room, size):
            await answer(scope, body.send, NO_ROOM)
            return
        try:
            await self._app(scope, body.receive, body.send)
        finally:
            self._uploads.arrived(size)

    async def _log_in(self, scope: Scope, body: Body) -> None:
        client = network_of((scope.get("client") or ("", 0))[0])
        wait = self._logins.begin(client)
        if wait is None:
            await answer(scope, body.send, IMPATIENT)
            return
        await asyncio.sleep(wait)
        await self._app(scope, body.receive, body.send)
        if body.status < 400:
            self._logins.right(client)


class Body:
    """Reads a body and counts its bytes; refuses a request that is too large or slow, whatever the app responds."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = with_headers(send)
        self._limit = limit
        self._read = 0
        self._waited = 0.0  # seconds spent waiting for the client
        self._whole = False
        self._refused: Refusal | None = None
        self.status = 500

    async def receive(self) -> Message:
        if self._whole or self._refused is not None:
            return await self._receive() if self._refused is None else {"type": "http.disconnect"}
        began = time.monotonic()
        patience = min(BODY_SECONDS, BODY_SECONDS + self._read / SLOWEST - self._waited)
        try:
            message = await asyncio.wait_for(self._receive(), patience)
        except asyncio.TimeoutError:
            self._refused = SLOW
            return {"type": "http.disconnect"}
        self._waited += time.monotonic() - began
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._limit:
            self._refused = too_large(self._limit)
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self._refused is None:
            self.status = message.get("status", self.status)
            await self._send(message)
        elif message["type"] == "http.response.start":
            self.status = self._refused.status
            await answer({"type": "http"}, self._send, self._refused)


def read_headers(scope: Scope) -> dict[str, str]:
    """Returns headers by lower-case name; for a repeated header the last value counts, as in gradio."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}


def is_foreign(headers: dict[str, str]) -> bool:
    """Tells whether a browser reports another site as the origin; other programs report none, which is harmless."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # sent over https and on localhost; correct behind any proxy
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        place = urlsplit(origin).netloc
    except ValueError:
        return True
    return not place or place != headers.get("host")


def body_limit(scope: Scope, headers: dict[str, str], *, is_upload: bool) -> int:
    """Returns this client's maximum body size in bytes."""
    if not is_known(scope.get("app"), headers.get("cookie", "")):
        return STRANGER_BYTES
    return UPLOAD_BYTES if is_upload else BODY_BYTES


def is_known(app: Any, cookies: str) -> bool:
    """Tells whether the client is logged in, or no login is needed."""
    if getattr(app, "auth", None) is None:
        return True
    try:
        found = SimpleCookie(cookies)
    except CookieError:
        return False
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(name in found and found[name].value in app.tokens for name in names)


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
    """Sends one line of text and closes the connection, since the rest of the body is not read."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = (refusal.text + "\n").encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*headers, *RESPONSE_HEADERS]})
    await send({"type": "http.response.body", "body": body})
