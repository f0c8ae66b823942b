"""Turns every error into a status and one sentence; each dialect writes them in its clients' own form."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import ClientDisconnect

from modules.core.errors import DeviceError, LightDiffusionError, OutOfMemoryError, OutputError, bug_text
from modules.core.typed import Unreadable
from modules.tasks.queue import QueueFull

log = logging.getLogger(__name__)

BAD_REQUEST, LATER, UNAVAILABLE, BROKEN = 400, 429, 503, 500
NOT_THE_REQUEST = (OutputError, OutOfMemoryError, DeviceError)  # this computer's trouble, not the client's mistake


@dataclass(frozen=True)
class Refusal:
    """What a client is told instead of a result."""

    status: int
    sentence: str


def in_words(sentence: str, words: Mapping[str, str]) -> str:
    """Replaces options of the command line by a client's words for them. Options of the server itself have none."""
    for option, word in words.items():
        sentence = re.sub(rf"{re.escape(option)}(?![\w-])", word, sentence)
    return sentence


class Refused(LightDiffusionError):
    """An error whose HTTP status is known where it is raised."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def refusal_of(error: Exception) -> Refusal:
    """Returns the refusal for any error; one that is not meant for people is logged, and counts as a bug."""
    if isinstance(error, Unreadable):
        return Refusal(BAD_REQUEST, f"{error}.")
    if isinstance(error, LightDiffusionError):
        return Refusal(status_of(error), str(error))
    if isinstance(error, ClientDisconnect):  # nobody hears this, or the guard refuses the body in its own words
        return Refusal(BAD_REQUEST, "The request ended before it was whole.")
    log.error("A request to the API failed", exc_info=error)
    return Refusal(BROKEN, bug_text(error))


def status_of(error: LightDiffusionError) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, QueueFull):
        return LATER
    return UNAVAILABLE if isinstance(error, NOT_THE_REQUEST) else BAD_REQUEST
