"""The host names at which the server may be reached."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.middleware import Middleware

from api.errors import Refusal
from api.guard.asgi import Asgi, Receive, Scope, Send, answer, read_headers
from modules.core.errors import quoted

LOCAL = "127.0.0.1"
OWN_NAMES = (LOCAL, "localhost")
_PORT = re.compile(r":\d*$", re.ASCII)


def known_hosts_only(more: Sequence[str] = ()) -> Middleware:
    """Allows only this computer's own names, and `more`.

    This prevents DNS rebinding, in which a foreign name points here. It is for servers without a login. With one, a
    proxy may use any name.
    """
    return Middleware(KnownHosts, names=(*OWN_NAMES, *more))


class KnownHosts:
    """ASGI middleware. A request that calls this computer by another name than `names` is refused."""

    def __init__(self, app: Asgi, names: Sequence[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = host_of(scope) if scope["type"] in ("http", "websocket") else LOCAL
        if name in self._names or name.startswith("["):  # a numeric address, for which there is no DNS rebinding
            await self._app(scope, receive, send)
        else:
            told = f"This computer is not known by the name {quoted(name)}: allow it with --allow-host NAME."
            await answer(scope, send, Refusal(400, told))


def host_of(scope: Scope) -> str:
    """Returns the name in the Host header, in lower case and without the port."""
    return _PORT.sub("", read_headers(scope).get("host", "").strip().lower())
