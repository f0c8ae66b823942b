"""Lets the guard refuse a call of the API in the form that its clients read."""

from __future__ import annotations

from api.guard.asgi import FORM, Asgi, Receive, Scope, Send
from api.guard.gate import Gate
from api.mount import DIALECTS


class OwnForm:
    """ASGI middleware around all others: notes in the scope which dialect writes a refusal."""

    def __init__(self, app: Asgi, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        dialect = next((each for each in DIALECTS if path.startswith(each.prefixes)), None)
        if dialect is not None and self._gate.is_api(path):
            scope = {**scope, FORM: dialect.refuse}
        await self._app(scope, receive, send)
