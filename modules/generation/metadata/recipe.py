"""Represents the settings in a picture's texts under A1111's names, whichever program wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import OptionsError, quoted
from modules.core.typed import Unreadable, parse_json_object

NO_EMPHASIS, COMFY_EMPHASIS = "off", "comfy"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A picture's settings: `fields` are texts under A1111's names ("CFG scale"), checked when converted to options.

    `prompt` is None if a program computed it. `left_out` lists settings that do not fit into the fields.
    """

    program: str
    prompt: str | None
    negative: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def json_object(text: str | None) -> dict[str, Any] | None:
    """Parses a JSON object; returns None for any other text."""
    if text is None or not text.lstrip().startswith("{"):
        return None
    try:
        return parse_json_object(text)
    except Unreadable:
        return None


def member(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the object under a name; for any other value, an empty object."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def prompt_text(value: object, program: str) -> str:
    """Returns a prompt, which must be a string. Raises OptionsError."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise OptionsError(
            f"The settings of {program} in this picture are damaged (the prompt {quoted(value)} is not a text)."
        )
    return value


def as_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Formats JSON values as A1111 would; leaves out None and empty values."""
    return {name: str(value) for name, value in values.items() if value not in (None, "", [], {})}


def lora_fields(loras: Iterable[Sequence[object]]) -> dict[str, str]:
    """Formats each LoRA's (name, strength) or (name, strength, text strength) as in our own pictures."""
    names = ("name", "strength", "text_strength")
    return {
        f"LoRA {position}": json.dumps({name: v for name, v in zip(names, lora, strict=False) if v is not None})
        for position, lora in enumerate(loras)
    }


def size_text(width: object, height: object) -> str | None:
    return None if width is None or height is None else f"{width}x{height}"
