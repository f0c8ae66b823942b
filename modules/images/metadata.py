"""The generation text inside a picture, in A1111's `parameters` format: written so that it reads back exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from PIL import ExifTags, Image

PNG_KEY = "parameters"
NEGATIVE = "Negative prompt:"
# Fields of ours, written only for texts that the plain format cannot carry exactly; other programs ignore them.
EXACT_PROMPT = "Exact prompt"
EXACT_NEGATIVE = "Exact negative prompt"
MINIMUM_FIELDS = 3  # fewer `key: value` pairs on the last line mean that it belongs to the prompt

_FIELD = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_KEY = re.compile(r"\w[\w \-/]*")
_PLAIN_VALUE = re.compile(r'[^\s,:"](?:[^,:"\n\r]*[^\s,:"])?')


def write_parameters(info: Mapping[str, object], prompt: str, negative: str = "") -> str:
    """The `parameters` text; `info` needs at least three fields that are not None, in the order to be written."""
    fields = {key: _format(value) for key, value in info.items() if value is not None}
    if len(fields) < MINIMUM_FIELDS:
        raise ValueError(f"the format needs at least {MINIMUM_FIELDS} fields, got {list(fields)}")
    plain = _assemble(fields, prompt, negative)
    read_prompt, read_negative, _ = parse_parameters(plain)
    if (read_prompt, read_negative) == (prompt, negative):
        return plain
    # Both or none, so that the reader never mixes an exact text with what is left over in the other.
    exact = {
        EXACT_PROMPT: json.dumps(prompt, ensure_ascii=False),
        EXACT_NEGATIVE: json.dumps(negative, ensure_ascii=False),
    }
    return _assemble({**fields, **exact}, prompt, negative)


def parse_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, fields) of a `parameters` text, ours or any A1111-like program's."""
    body, fields = _split_fields(text.strip())
    prompt, negative = _split_prompts(body)
    prompt = fields.pop(EXACT_PROMPT, prompt)
    negative = fields.pop(EXACT_NEGATIVE, negative)
    return prompt, negative, fields


def parameters_of(image: Image.Image) -> str | None:
    """The text inside an opened picture: PNG text, or the EXIF comment of JPEG and WebP; None without one."""
    text = image.info.get(PNG_KEY)
    if isinstance(text, str) and text.strip():
        return text
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    return (_decode_comment(comment) if isinstance(comment, bytes) else comment) or None


def _assemble(fields: Mapping[str, str], prompt: str, negative: str) -> str:
    for key in fields:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot be the name of a field")
    last = ", ".join(f"{key}: {value}" for key, value in fields.items())
    middle = f"{NEGATIVE} {negative}\n" if negative else ""
    return f"{prompt}\n{middle}{last}"


def _format(value: object) -> str:
    """A value as text; JSON quotes around what would otherwise end the field early or lose its spaces."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = str(value)
    return text if not text or _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _split_fields(text: str) -> tuple[str, dict[str, str]]:
    body, _, last = text.rpartition("\n")
    found = _FIELD.findall(last)
    if len(found) < MINIMUM_FIELDS:
        return text, {}
    return body, {key.strip(): _unquote(value.strip()) for key, value in found}


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        return str(json.loads(value, strict=False))
    except json.JSONDecodeError:
        return value


def _split_prompts(body: str) -> tuple[str, str]:
    """Everything from the first line that starts with the marker is the negative prompt."""
    lines = body.split("\n")
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip().removeprefix(NEGATIVE)
    return "\n".join(lines[:start]).strip(), negative.strip()


def _decode_comment(comment: bytes) -> str:
    """EXIF's UserComment: eight bytes naming the encoding, then the text."""
    code, data = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        little = data[:2] == b"\xff\xfe" or (data[1:2] == b"\0" and data[:1] != b"\0")
        return data.decode("utf-16-le" if little else "utf-16-be", "replace").lstrip("\ufeff")
    text = data if code in (b"ASCII\0\0\0", b"\0" * 8) else comment
    return text.decode("utf-8", "replace").strip("\0")
