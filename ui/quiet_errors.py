"""Lets gradio log an error as one line. It prints a traceback for each call that makes no sense, whoever makes it."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import SimpleNamespace

from modules.core.errors import bug_text, printable

log = logging.getLogger(__name__)

PRINTERS = ("gradio.queueing", "gradio.routes", "gradio.route_utils", "gradio.utils")


def log_in_one_line() -> None:
    """After gradio is imported. What our own work raises is logged with its traceback by the queue."""
    for name in PRINTERS:
        module = import_module(name)
        if hasattr(module, "traceback"):
            module.traceback = SimpleNamespace(**vars(module.traceback) | {"print_exc": print_line})


def print_line(*_: object, **__: object) -> None:
    """In place of traceback.print_exc."""
    error = sys.exc_info()[1]
    if error is not None:
        log.warning("A request was refused: %s", printable(bug_text(error)))
