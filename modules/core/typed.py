"""Reads typed values from JSON, TOML and picture texts, or gives one short reason for rejecting them (no torch).

Untrusted files are read through this module: a value of the wrong type, a number with four hundred digits
or a thousand nested brackets raise Unreadable and no other error.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from modules.core.errors import quoted

LARGEST_NUMBER = 2**63  # no option, size or seed above this makes sense
DEEPEST = 64  # nesting levels
LONGEST_TEXT = 1_000_000  # characters per value

T = TypeVar("T")


class Unreadable(ValueError):
    """An invalid value; the message is a short reason without a full stop: `width: 1.5 is not a whole number`."""


def parse_json(text: str | bytes) -> Any:
    """Parses a JSON text. Raises Unreadable for anything else, including NaN and Infinity."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""  # a single line needs no line number
        raise Unreadable(f"it is not valid JSON ({error.msg} at {line}column {error.colno})") from error
    except ValueError as error:  # UnicodeDecodeError, or an integer with thousands of digits
        raise Unreadable(f"it is not valid JSON ({error})") from error
    check_depth(value)
    return value


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """Parses a JSON text that must be an object. Raises Unreadable."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise Unreadable("it is not a JSON object")
    return value


def check_depth(value: Any) -> None:
    """Raises Unreadable if lists and objects are nested more deeply than in any file this program writes."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for item in level if isinstance(item, (dict, list)) for inner in _inside(item)]
        if not level:
            return
    raise Unreadable("it is nested too deeply")


def _inside(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _refuse_constant(name: str) -> None:
    raise Unreadable(f"it holds {name}, which is not a number")


def whole(value: object, name: str) -> int:
    """Reads a whole number; rejects true, 1.5 and "7"."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST_NUMBER:
        raise Unreadable(f"{name}: {quoted(value)} is not a whole number that can be used")
    return value


def number(value: object, name: str) -> float:
    """Reads a finite number; rejects true and "7"."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST_NUMBER:
        raise Unreadable(f"{name}: {quoted(value)} is not a number that can be used")
    return value


def text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise Unreadable(f"{name}: {quoted(value)} is not a text that can be used")
    return value


def is_utf8(value: str) -> bool:
    """Returns True if the text can be encoded; lone surrogates, which may occur in JSON and file names, cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise Unreadable(f"{name}: {quoted(value)} is neither true nor false")
    return value


_PLAIN: dict[Any, Callable[[object, str], Any]] = {int: whole, float: number, str: text, bool: flag}


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Builds a dataclass from untrusted values, checking each one against its field's annotation.

    Raises Unreadable for a value of the wrong type, an unknown field or a missing field. An OptionsError raised by the
    class itself is passed through.
    """
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is not a dataclass")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for name in values:
        if name not in known:
            raise Unreadable(f"there is no field called {quoted(name)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise Unreadable(f"{name} is missing")
    return kind(**{name: read(value, hints[name], name) for name, value in values.items()})


def read(value: object, hint: Any, name: str) -> Any:
    """Reads one value of the annotated type: int, float, str, bool, Path, a dataclass, `X | None`, `tuple[X, ...]`."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [choice for choice in get_args(hint) if choice is not type(None)]
        return None if value is None and len(inner) < len(get_args(hint)) else read(value, inner[0], name)
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise Unreadable(f"{name}: {quoted(value)} is not a list")
        return tuple(read(item, get_args(hint)[0], name) for item in value)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise Unreadable(f"{name}: {quoted(value)} is not an object")
        return build(hint, value)
    if hint is Path:
        return readable_path(value, name)
    return _PLAIN[hint](value, name)


def readable_path(value: object, name: str) -> Path:
    """Reads a path: a string without null bytes, with a leading `~` expanded if possible."""
    given = text(value, name)
    if "\0" in given:
        raise Unreadable(f"{name}: {quoted(given)} holds a zero byte")
    try:
        return Path(given).expanduser()
    except RuntimeError:  # ~nosuchuser
        raise Unreadable(f"{name}: {quoted(given)} names a user that does not exist") from None
