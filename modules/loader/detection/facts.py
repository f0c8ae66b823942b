"""Reads facts not evident from shapes in a file's header or a folder's configs; checks types and ranges."""

from __future__ import annotations

from collections.abc import Mapping

from modules.core.errors import ModelFileError, quoted
from modules.core.typed import Unreadable, number, parse_json_object, read, whole

# Facts about the text encoders; those of SDXL's second one have names of their own.
TEXT_FACTS = ("clip_heads", "clip_activation", "clip_g_heads", "clip_g_activation")
_LARGEST = 65536  # maximum for heads, groups or pixels


def header_facts(metadata: Mapping[str, str]) -> dict[str, object]:
    """Reads our header text, which overrides the detection rules. Raises ModelFileError if it is not a JSON object."""
    text = metadata.get("lightdiffusion") or metadata.get("sd_tiny")
    if not text:
        return {}
    try:
        return parse_json_object(text)
    except Unreadable as error:
        raise ModelFileError(f'The header text "lightdiffusion" of this file is damaged ({error}).') from error


def number_of(facts: Mapping[str, object], name: str, default: int) -> int:
    """Reads a whole number of at least 1, or returns `default` if the file has no such value."""
    if facts.get(name) is None:
        return default
    try:
        value = whole(facts[name], name)
    except Unreadable as error:
        raise _wrong(str(error)) from error
    if not 1 <= value <= _LARGEST:
        raise _wrong(f"{name}: {quoted(value)} is not between 1 and {_LARGEST}")
    return value


def factor_of(facts: Mapping[str, object], name: str, default: float) -> float:
    """Reads a number above 0, or returns `default`."""
    if facts.get(name) is None:
        return default
    try:
        value = float(number(facts[name], name))
    except Unreadable as error:
        raise _wrong(str(error)) from error
    if value <= 0:
        raise _wrong(f"{name}: {quoted(value)} is not above 0")
    return value


def factors_of(facts: Mapping[str, object], name: str) -> tuple[float, ...]:
    """Reads a list of numbers; returns () if the file has no such value."""
    if facts.get(name) is None:
        return ()
    try:
        numbers: tuple[float, ...] = read(facts[name], tuple[float, ...], name)
    except Unreadable as error:
        raise _wrong(str(error)) from error
    return numbers


def _wrong(reason: str) -> ModelFileError:
    return ModelFileError(f"The header or configuration of this model cannot be used ({reason}).")
