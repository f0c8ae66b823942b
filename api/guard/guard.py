"""Guards the server: limits request bodies, rejects foreign origins, and delays logins after a failed one."""

from __future__ import annotations

import asyncio
import time
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol
from urllib.parse import urlsplit

from api.errors import Refusal
from api.guard.asgi import Asgi, Message, Receive, Scope, Send, answer, read_headers, with_headers
from api.guard.gate import Gate
from api.guard.logins import Logins, network_of

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
STRANGER_BYTES = 64 * 1024  # for requests before the login, such as the login itself
BODY_BYTES = 2 * 1024**2
UPLOAD_BYTES = 65 * 1024**2  # a 64 MiB file plus multipart overhead
BODY_SECONDS = 30  # the wait for the next piece of a body, and the total wait beyond the time allowed by SLOWEST
SLOWEST = 16 * 1024  # bytes per second


class Uploads(Protocol):
    """A folder for uploads: `make_room` reserves bytes, `arrived` releases them."""

    def make_room(self, size: int) -> bool: ...
    def arrived(self, size: int) -> None: ...


FOREIGN = Refusal(403, "This request comes from another site and was refused.")
SLOW = Refusal(408, "The request was too slow and was dropped.")
IMPATIENT = Refusal(429, "There were too many login attempts at once; wait a minute.")
NO_ROOM = Refusal(507, "The folder for uploads is full; try again in an hour, or restart the program.")


def too_large(limit: int) -> Refusal:
    size = f"{limit // 1024**2} MB" if limit >= 1024**2 else f"{limit // 1024} KB"
    return Refusal(413, f"The request is too large: at most {size} are allowed.")


class Guard:
    """ASGI middleware around gradio's app, or around the API alone, which takes no uploads."""

    def __init__(self, app: Asgi, uploads: Uploads | None = None, gate: Gate | None = None) -> None:
        self._app = app
        self._uploads = uploads
        self._gate = gate or Gate()
        self._logins = Logins()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = read_headers(scope)
        method = scope.get("method", "POST")  # a websocket may make changes, too
        if method not in SAFE_METHODS and is_foreign(headers) and not self._gate.welcomes(scope["path"], headers):
            await answer(scope, send, FOREIGN)
        elif method in SAFE_METHODS or scope["type"] == "websocket":
            await self._app(scope, receive, with_headers(send))
        else:
            await self._pass_body(scope, headers, receive, send)

    async def _pass_body(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        if self._gate.is_api(scope["path"]):
            await self._call_api(scope, headers, receive, send)
            return
        path = scope["path"].rstrip("/")
        uploads = self._uploads if path.endswith("/upload") else None
        limit = body_limit(scope, headers, is_upload=uploads is not None)
        size = declared_size(headers)
        if size > limit:
            await answer(scope, send, too_large(limit))
            return
        body = Body(scope, receive, send, limit)
        if uploads is not None:
            await self._upload(uploads, scope, body, size or limit)
        elif path.endswith("/login"):
            await self._log_in(scope, body)
        else:
            await self._app(scope, body.receive, body.send)

    async def _call_api(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """Passes a call of the API on. It answers a stranger without reading the body, which may hold pictures."""
        is_known = self._gate.access.allows(headers)
        if is_known and declared_size(headers) > UPLOAD_BYTES:
            await answer(scope, send, too_large(UPLOAD_BYTES))
            return
        body = Body(scope, receive, send, UPLOAD_BYTES if is_known else STRANGER_BYTES)
        await self._app(scope, body.receive, body.send)

    async def _upload(self, uploads: Uploads, scope: Scope, body: Body, size: int) -> None:
        if not await asyncio.to_thread(uploads.make_room, size):
            await answer(scope, body.send, NO_ROOM)
            return
        try:
            await self._app(scope, body.receive, body.send)
        finally:
            uploads.arrived(size)

    async def _log_in(self, scope: Scope, body: Body) -> None:
        client = network_of((scope.get("client") or ("", 0))[0])
        if not await self._logins.take_turn(client):
            await answer(scope, body.send, IMPATIENT)
            return
        await self._app(scope, body.receive, body.send)
        if body.status < 400:
            self._logins.right(client)


class Body:
    """Reads a body and counts its bytes; refuses a request that is too large or slow, whatever the app responds."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self._scope = scope
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
            await answer(self._scope, self._send, self._refused)


def declared_size(headers: dict[str, str]) -> int:
    """Returns the number of bytes that a request announces; 0 for a senseless text."""
    declared = headers.get("content-length", "")
    return min(int(declared[:20]), 10**20) if declared.isascii() and declared.isdecimal() else 0


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
