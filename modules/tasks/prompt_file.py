"""Reads a file with one request per line: plain prompts or JSON objects. A bad line does not affect the others."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError
from modules.core.typed import Unreadable, parse_json_object

COMMENT = "#"
LARGEST_PROMPT_FILE = 16 << 20  # bytes
# A prompt that begins with a choice, {a|b}; JSON has a quotation mark before any bar.
CHOICE = re.compile(r"\{[^\"|}]*\|")
EXAMPLE = '{"prompt": "a cat", "seed": 7}'


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """Line `number` (from 1): its values by option name, or a sentence that explains the error."""

    number: int
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def read_prompt_file(path: Path) -> list[PromptLine]:
    """Returns all lines except empty ones and comments (#). Raises OptionsError for an empty or unreadable file."""
    try:
        with path.open("rb") as file:  # reading a pipe or a device might never end
            data = file.read(LARGEST_PROMPT_FILE + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OptionsError(f"The prompts in {path} cannot be read ({reason}); check the name.") from error
    if len(data) > LARGEST_PROMPT_FILE:
        raise OptionsError(f"The prompts in {path} are over {LARGEST_PROMPT_FILE >> 20} MB: split the file.")
    texts = _decoded(data).split("\n")
    found = [_read_line(number, text) for number, text in enumerate(texts, start=1) if _counts(text.strip())]
    if not found:
        raise OptionsError(f"There is no prompt in {path}: write one on each line.")
    return found


def _decoded(data: bytes) -> str:
    """Decodes UTF-8, or UTF-16 with its mark (as the Windows shell writes); other bytes become lone surrogates."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _counts(text: str) -> bool:
    return bool(text) and not text.startswith(COMMENT)


def _read_line(number: int, text: str) -> PromptLine:
    if any("\ud800" <= character <= "\udfff" for character in text):
        return PromptLine(number=number, error="This line is not UTF-8 text; save the file as UTF-8.")
    if "\0" in text:
        return PromptLine(number=number, error="This line contains a zero byte; save the file as plain UTF-8 text.")
    if not text.strip().startswith("{") or CHOICE.match(text.strip()):
        return PromptLine(number=number, values={"prompt": text.strip()})
    try:
        return PromptLine(number=number, values=parse_json_object(text.rstrip()))  # errors count columns from the left
    except Unreadable as error:
        return PromptLine(
            number=number, error=f"A line that starts with {{ must be one JSON object such as {EXAMPLE}; {error}."
        )
