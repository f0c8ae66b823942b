"""Reads a client's JSON object field by field; a wrong value is told in a sentence that names the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modules.core import typed
from modules.core.errors import OptionsError, quoted
from modules.core.typed import Unreadable

T = TypeVar("T")


class Fields:
    """A JSON object. A field that is missing or null has its default, as in the programs that these clients know.

    Every reader raises OptionsError for a value of another type.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        return self._read(name, default, typed.text)

    def whole(self, name: str, default: int) -> int:
        return self._read(name, default, whole)

    def number(self, name: str, default: float) -> float:
        return self._read(name, default, typed.number)

    def flag(self, name: str, *, default: bool = False) -> bool:
        return self._read(name, default, flag)

    def list(self, name: str) -> list[Any]:
        return self._read(name, [], a_list)

    def object(self, name: str) -> Fields:
        return Fields(self._read(name, {}, an_object))

    def data(self, name: str) -> str:
        """Reads a picture's base64 text, which may be as long as the whole request."""
        return self._read(name, "", any_text)

    def datas(self, name: str) -> tuple[str, ...]:
        return tuple(checked(any_text, item, name) for item in self.list(name))

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(checked(typed.text, item, name) for item in self.list(name))

    def _read(self, name: str, default: T, read: Callable[[object, str], T]) -> T:
        return checked(read, self.values[name], name) if self.has(name) else default


def checked(read: Callable[[object, str], T], value: object, name: str) -> T:
    """Calls a reader that raises Unreadable. Raises OptionsError."""
    try:
        return read(value, name)
    except Unreadable as error:
        raise OptionsError(f"{error}.") from error


def whole(value: object, name: str) -> int:
    """Reads a whole number; JavaScript may write 512 as 512.0."""
    return typed.whole(int(value) if isinstance(value, float) and value.is_integer() else value, name)


def flag(value: object, name: str) -> bool:
    """Reads true or false; some clients write 1 and 0."""
    return typed.flag(bool(value) if type(value) is int and value in (0, 1) else value, name)


def any_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Unreadable(f"{name}: {quoted(value)} is not a text")
    return value


def a_list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Unreadable(f"{name}: {quoted(value)} is not a list")
    return value


def an_object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{name}: {quoted(value)} is not an object")
    return value


def body_fields(body: bytes) -> Fields:
    """Reads a request's JSON body; an empty one counts as an empty object. Raises OptionsError."""
    try:
        return Fields(typed.parse_json_object(body) if body.strip() else {})
    except Unreadable as error:
        raise OptionsError(f"The request cannot be read: {error}.") from error
