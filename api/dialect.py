"""What the API knows of a family of clients: its endpoints, and the form of its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from api.desk import Desk
from api.errors import Refusal, in_words
from api.fields import Fields, body_fields

Answer = Callable[[Desk, Request], Awaitable[Response]]


def as_json(value: object, status: int = 200) -> Response:
    """Writes JSON in ASCII, since a prompt may hold half a character that UTF-8 cannot represent."""
    return Response(json.dumps(value), status, media_type="application/json")


async def json_fields(request: Request) -> Fields:
    """Reads a JSON body beside the event loop, since it may hold pictures. Raises OptionsError."""
    return await asyncio.to_thread(body_fields, await request.body())


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    method: str
    path: str
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """`prefixes` are the paths that belong to the dialect, known or not; `refuse` writes a refusal in its form.

    `words` are its names for options of the command line, which sentences for people name.
    """

    prefixes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    refuse: Callable[[Refusal], Response]
    words: Mapping[str, str]

    def told(self, desk: Desk, refusal: Refusal) -> Refusal:
        """Returns the refusal in the dialect's words and without names of this computer's folders."""
        return Refusal(refusal.status, in_words(desk.without_paths(refusal.sentence), self.words))
