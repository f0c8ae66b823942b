"""What the header of a file or the configs of a folder say and shapes cannot tell, with types and sizes checked."""

from __future__ import annotations

from collections.abc import Mapping

from modules.core.errors import ModelFileError, quoted
from modules.core.typed import Unreadable, number, parse_json_object, whole

TEXT_FACTS = ("clip_heads", "clip_activation")  # those about the text encoder
_LARGEST = 65536  # of a number of heads, groups or pixels


def header_facts(metadata: Mapping[str, str]) -> dict[str, object]:
    """Our own header text; it overrides the rules. Raises ModelFileError for what is no JSON object."""
    text = metadata.get("lightdiffusion") or metadata.get("sd_tiny")
    if not text:
        return {}
    try:
        return parse_json_object(text)
    except Unreadable as error:
        raise ModelFileError(f'The header text "lightdiffusion" of this file is damaged ({error}).') from error


def number_of(facts: Mapping[str, object], name: str, default: int) -> int:
    """A fact that is a whole number of at least 1, or `default` where the file says nothing."""
    if facts.get(name) is None:
        return default
    try:
        value = whole(facts[name], name)
    except Unreadable as error:
        raise _wrong(str(error)) from error
    if not 1 <= value <= _LARGEST:
        raise _wrong(f"{name}: {quoted(value)} is not from 1 to {_LARGEST}")
    return value


def factor_of(facts: Mapping[str, object], name: str, default: float) -> float:
    """The same for a number above 0."""
    if facts.get(name) is None:
        return default
    try:
        value = float(number(facts[name], name))
    except Unreadable as error:
        raise _wrong(str(error)) from error
    if value <= 0:
        raise _wrong(f"{name}: {quoted(value)} is not above 0")
    return value


def _wrong(reason: str) -> ModelFileError:
    return ModelFileError(f"The header or configuration of this model cannot be used ({reason}).")
