"""What the texts of a picture say, under A1111's names whichever program wrote them."""

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
    """`fields` are texts by A1111's names ("CFG scale"), checked only where they become options.

    `prompt` is None where a program computed it. `left_out` names what the fields cannot say.
    """

    program: str
    prompt: str | None
    negative: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def json_object(text: str | None) -> dict[str, Any] | None:
    """The object that a JSON text holds; None for a text that is something else."""
    if text is None or not text.lstrip().startswith("{"):
        return None
    try:
        return parse_json_object(text)
    except Unreadable:
        return None


def member(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object under a name; an empty one for anything else."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def prompt_text(value: object, program: str) -> str:
    """A prompt that must be a text. Raises OptionsError."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise OptionsError(
            f"The settings of {program} in this picture are damaged (the prompt {quoted(value)} is not a text)."
        )
    return value


def as_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Values of JSON as A1111 would have written them; what is None or empty is left out."""
    return {name: str(value) for name, value in values.items() if value not in (None, "", [], {})}


def lora_fields(loras: Iterable[Sequence[object]]) -> dict[str, str]:
    """(name, strength) or (name, strength, text strength) of each LoRA in the notation of our own pictures."""
    names = ("name", "strength", "text_strength")
    return {
        f"LoRA {position}": json.dumps({name: v for name, v in zip(names, lora, strict=False) if v is not None})
        for position, lora in enumerate(loras)
    }


def size_text(width: object, height: object) -> str | None:
    return None if width is None or height is None else f"{width}x{height}"
