"""Reading a client's JSON: defaults, the tolerance that clients need, and sentences that name the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.fields import Fields, body_fields
from modules.core.errors import OptionsError


def test_missing_and_null_are_the_default() -> None:
    fields = Fields({"a": None})
    assert (fields.text("a", "x"), fields.whole("b", 3), fields.number("a", 1.5), fields.flag("b")) == (
        "x",
        3,
        1.5,
        False,
    )
    assert fields.list("a") == [] and fields.object("b").values == {} and fields.texts("a") == ()


def test_javascripts_numbers_and_ones_for_true() -> None:
    fields = Fields({"steps": 20.0, "cfg": 7, "on": 1, "off": 0})
    assert fields.whole("steps", 1) == 20 and type(fields.whole("steps", 1)) is int
    assert fields.number("cfg", 1.0) == 7 and fields.flag("on") is True and fields.flag("off", default=True) is False


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda fields: fields.whole("field", 1), 1.5),
        (lambda fields: fields.whole("field", 1), "7"),
        (lambda fields: fields.whole("field", 1), True),
        (lambda fields: fields.whole("field", 1), 10**400),
        (lambda fields: fields.number("field", 1.0), "7"),
        (lambda fields: fields.text("field"), 7),
        (lambda fields: fields.flag("field"), 2),
        (lambda fields: fields.list("field"), {}),
        (lambda fields: fields.object("field"), []),
        (lambda fields: fields.texts("field"), ["x", 7]),
        (lambda fields: fields.datas("field"), [None]),
        (lambda fields: fields.data("field"), {}),
    ],
)
def test_another_type_is_a_sentence(read: Callable[[Fields], object], value: Any) -> None:
    with pytest.raises(OptionsError, match=r"^field: .*\.$"):
        read(Fields({"field": value}))


def test_a_picture_may_be_longer_than_any_text() -> None:
    long = "x" * 2_000_000
    assert Fields({"image": long}).data("image") == long
    with pytest.raises(OptionsError):
        Fields({"prompt": long}).text("prompt")


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_object(body: bytes) -> None:
    with pytest.raises(OptionsError, match="The request cannot be read"):
        body_fields(body)
    assert body_fields(b" ").values == {}
