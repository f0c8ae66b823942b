"""Downloads one large file, resuming after interruptions, and checks it against the server's size and SHA-256.

The standard library is enough. Gradio installs huggingface_hub, but that library stores files in a cache layout that
the model folders do not search, and the web page switches huggingface_hub to offline mode.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from modules.core.errors import LightDiffusionError
from modules.core.progress import CancelToken

TIMEOUT_SECONDS = 30
CHUNK = 1 << 20
REQUEST_HEADERS = {"User-Agent": "lightdiffusion-next", "Accept-Encoding": "identity"}
OnBytes = Callable[[int], None]


class DownloadError(LightDiffusionError):
    """A file that could not be downloaded, or does not match the one the server offered."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file's details as reported by the server before the download starts."""

    url: str
    size: int
    sha256: str


class Redirects(HTTPRedirectHandler):
    """Follows redirects, but never from https to plain http.

    With `first_answer`, it stops at Hugging Face's own response, which describes the file and redirects to storage.
    """

    def __init__(self, *, first_answer: bool = False) -> None:
        self._first_answer = first_answer

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str) -> Any:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise URLError("it was redirected to an address without encryption")
        if self._first_answer and headers.get("X-Linked-ETag"):
            return None  # urllib then raises the redirect as an error, with its headers
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def ask(url: str) -> Offer:
    """Gets the size and SHA-256 of a Hugging Face file from the response headers alone."""
    request = Request(url, method="HEAD", headers=REQUEST_HEADERS)
    try:
        with build_opener(Redirects(first_answer=True)).open(request, timeout=TIMEOUT_SECONDS) as response:
            headers = response.headers
    except HTTPError as error:
        if not 300 <= error.code < 400:
            raise DownloadError(f"{host(url)} answered {error.code} ({error.reason}); try again later.") from error
        headers = error.headers
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{host(url)} cannot be reached ({reason(error)}); check the connection.") from error
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    sha256 = (headers.get("X-Linked-ETag") or "").strip('"').lower()
    if not size.isdecimal() or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise DownloadError(f"{host(url)} gives no size and SHA-256 for the file, so it could not be checked.")
    return Offer(url=url, size=int(size), sha256=sha256)


def fetch(offer: Offer, target: Path, *, on_bytes: OnBytes | None = None, cancel: CancelToken | None = None) -> None:
    """Downloads the file to `target` and verifies it.

    An interrupted download stays in a hidden file, from which the next attempt resumes.
    """
    if target.exists():
        raise DownloadError(f"{target} already exists; nothing was downloaded.")
    part = target.with_name(f".{target.name}.{offer.sha256[:16]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        free = shutil.disk_usage(target.parent).free
        if offer.size - have > free:
            raise DownloadError(
                f"{megabytes(offer.size - have)} are needed in {target.parent}, {megabytes(free)} free."
            )
        if have < offer.size:
            receive(offer, part, have, on_bytes or (lambda _: None), cancel or CancelToken())
        if part.stat().st_size != offer.size or sha256_of(part) != offer.sha256:
            part.unlink()
            raise DownloadError("What arrived is not the file that was offered (its SHA-256 differs); it was deleted.")
        os.replace(part, target)
    except OSError as error:
        raise DownloadError(f"The file cannot be written to {target.parent} ({reason(error)}).") from error


def receive(offer: Offer, part: Path, have: int, on_bytes: OnBytes, cancel: CancelToken) -> None:
    """Appends the missing bytes; starts over if the server does not support resuming."""
    request = Request(offer.url, headers=REQUEST_HEADERS | ({"Range": f"bytes={have}-"} if have else {}))
    received = have
    try:
        response = build_opener(Redirects()).open(request, timeout=TIMEOUT_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise interrupted(offer, received, error) from error
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            received = 0
        with part.open("ab" if received else "wb") as file:
            while chunk := read_chunk(response, offer, received):
                file.write(chunk)
                received += len(chunk)
                on_bytes(received)
                cancel.check()
                if received > offer.size:
                    break  # larger than the file that was offered
    if received < offer.size:
        raise interrupted(offer, received, None)


def read_chunk(response: Any, offer: Offer, received: int) -> bytes:
    try:
        return response.read1(CHUNK)  # returns early on a slow connection, so progress and cancelling still work
    except (OSError, http.client.HTTPException) as error:
        raise interrupted(offer, received, error) from error


def interrupted(offer: Offer, received: int, error: Exception | None) -> DownloadError:
    why = f" ({reason(error)})" if error is not None else ""
    return DownloadError(
        f"The download stopped after {megabytes(received)} of {megabytes(offer.size)}{why}: start it again to resume."
    )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def host(url: str) -> str:
    return urlsplit(url).hostname or url


def reason(error: Exception) -> str:
    """Returns the cause in a few words; a URLError wraps another error or a message."""
    inner = error.reason if isinstance(error, URLError) else error
    text = (inner.strerror or str(inner)) if isinstance(inner, OSError) else str(inner)
    return text or type(error).__name__


def megabytes(size: int) -> str:
    return f"{size / 10**9:.2f} GB" if size >= 10**9 else f"{size / 10**6:.1f} MB"
