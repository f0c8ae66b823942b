"""Makes gradio log errors in one line each; otherwise every invalid call would print a traceback."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from api.errors import Refusal
from api.guard.asgi import Asgi, Message, Receive, Scope, Send, answer
from modules.core.errors import LONGEST_QUOTE, printable

log = logging.getLogger(__name__)

BROKEN = Refusal(500, "The request failed; the program's log says why.")  # the error itself may contain paths
PRINTERS = ("gradio.queueing", "gradio.routes", "gradio.route_utils", "gradio.utils")


def log_in_one_line() -> None:
    """Replaces gradio's tracebacks after its import. The queue still logs our own errors with their tracebacks."""
    for name in PRINTERS:
        module: Any = import_module(name)
        if hasattr(module, "traceback"):
            module.traceback = SimpleNamespace(**vars(module.traceback) | {"print_exc": print_line})


def print_line(*_: object, **__: object) -> None:
    """Replaces traceback.print_exc."""
    error = sys.exc_info()[1]
    if error is not None:
        log.warning("A request was refused: %s.", reason(error))


def reason(error: BaseException) -> str:
    """Returns an error's type and message, short enough for a log that strangers can write to."""
    return printable(f"{type(error).__name__}: {error}"[:LONGEST_QUOTE]).rstrip(". ")


class OneLine:
    """ASGI middleware that responds with, and logs, one sentence if a request breaks gradio."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:  # noqa: BLE001  # any error from inside gradio
            if scope["type"] == "lifespan":
                raise
            log.warning("A request was refused: %s.", reason(error))
            if not begun:
                await answer(scope, send, BROKEN)
