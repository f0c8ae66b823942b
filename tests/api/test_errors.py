"""Which status an error has."""

from __future__ import annotations

import pytest
from starlette.requests import ClientDisconnect

from api.errors import Refused, in_words, refusal_of
from modules.core.errors import DeviceError, ModelFileError, OptionsError, OutOfMemoryError, OutputError
from modules.core.typed import Unreadable
from modules.tasks.queue import QueueFull


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (OptionsError("No."), 400, "No."),
        (ModelFileError("No file."), 400, "No file."),
        (Unreadable("a: no"), 400, "a: no."),
        (Refused(404, "Nothing."), 404, "Nothing."),
        (QueueFull("Try again."), 429, "Try again."),
        (OutputError("The disk is full."), 503, "The disk is full."),
        (OutOfMemoryError("Too large."), 503, "Too large."),
        (DeviceError("A fault."), 503, "A fault."),
    ],
)
def test_errors_for_people_keep_their_sentence(error: Exception, status: int, sentence: str) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.sentence) == (status, sentence)


def test_a_bug_is_logged_and_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    refusal = refusal_of(KeyError("x\ny"))
    assert refusal.status == 500 and refusal.sentence.isprintable()
    assert caplog.records[0].exc_info is not None


def test_a_client_that_hangs_up_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    assert refusal_of(ClientDisconnect()).status == 400 and not caplog.records


def test_a_sentence_names_the_fields_of_its_client() -> None:
    words = {"--mask FILE": "mask", "--cfg": "cfg_scale"}
    told = in_words("It needs a mask: give one with --mask FILE, or a lower --cfg, or --cfg-scale.", words)
    assert told == "It needs a mask: give one with mask, or a lower cfg_scale, or --cfg-scale."
    assert in_words("Use --output-dir.", words) == "Use --output-dir.", "that is for whoever started the server"
