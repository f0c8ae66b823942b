"""Writes and reads a picture's generation text in A1111's `parameters` format; our texts are read back exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from PIL import ExifTags, Image

from modules.core.typed import Unreadable, parse_json

PNG_KEY = "parameters"
NEGATIVE = "Negative prompt:"
# Our own fields, written only for texts that the plain format cannot represent; other programs ignore these fields.
EXACT_PROMPT = "Exact prompt"
EXACT_NEGATIVE = "Exact negative prompt"
# A settings line has `STEPS` and two of `MARKS`, unlike a camera's comment or a prompt with colons.
STEPS = "steps"
MARKS = ("sampler", "seed", "size", "cfg scale", "model", "model hash", "schedule type", "version")
MINIMUM_FIELDS = 3

# Start of the settings in text that was joined into one line by a forum or chat.
_JOINED = re.compile(r"(?<!\S)Steps:\s*\d+\s*,\s*Sampler:")
# Lines that some programs insert between the prompts and the settings.
REMARKS = ("Used embeddings:", "Template:", "Negative Template:", "Wildcard prompt:")
_NAME = re.compile(r"(?:^|,)\s*(\w[\w \-/().+#]*):\s*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"')
_END = re.compile(r"\s*(?:,|$)")
EXIF_TEXTS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.Artist,
)
_KEY = re.compile(r"\w[\w \-/]*")
_PLAIN_VALUE = re.compile(r'[^\s,:"{\[](?:[^,:"\n\r]*[^\s,:"])?')


def write_parameters(info: Mapping[str, object], prompt: str, negative: str = "") -> str:
    """Writes the `parameters` text; `info` needs at least three fields that are not None, in their final order."""
    fields = {key: _format(value) for key, value in info.items() if value is not None}
    if len(fields) < MINIMUM_FIELDS:
        raise ValueError(f"the format needs at least {MINIMUM_FIELDS} fields, got {list(fields)}")
    plain = _assemble(fields, prompt, negative)
    read_prompt, read_negative, _ = parse_parameters(plain)
    if (read_prompt, read_negative) == (prompt, negative):
        return plain
    # Write both or neither, so that the reader never mixes one exact prompt with parts of the other prompt.
    exact = {
        EXACT_PROMPT: json.dumps(prompt, ensure_ascii=False),
        EXACT_NEGATIVE: json.dumps(negative, ensure_ascii=False),
    }
    return _assemble({**fields, **exact}, prompt, negative)


def with_fields(text: str, info: Mapping[str, object]) -> str | None:
    """Adds fields behind the settings of a `parameters` text; None if it has no settings that stay as they are."""
    longer = f"{text.rstrip()}, {fields_line(info)}"
    prompt, negative, fields = parse_parameters(text)
    expected = prompt, negative, fields | {key: _unquote(_format(value)) for key, value in info.items()}
    return longer if fields and parse_parameters(longer) == expected else None


def fields_line(info: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {_format(value)}" for key, value in info.items())


def parse_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """Reads (prompt, negative prompt, fields) from a `parameters` text by this or any A1111-like program."""
    body, fields = _split_fields(text.strip())
    prompt, negative = _split_prompts(body)
    prompt = fields.pop(EXACT_PROMPT, prompt)
    negative = fields.pop(EXACT_NEGATIVE, negative)
    return prompt, negative, fields


def parameters_of(image: Image.Image) -> str | None:
    """Returns the text of an opened picture (PNG text, or the EXIF comment of JPEG and WebP), or None."""
    return texts_of(image).get(PNG_KEY)


def texts_of(image: Image.Image) -> dict[str, str]:
    """Returns all texts of an opened picture by name; without PNG text, the EXIF comment counts as `parameters`.

    Raises Pillow's errors for damaged EXIF data, so call this inside `modules.images.open.opened`.
    """
    texts = {str(key): text for key, text in image.info.items() if isinstance(text, str) and text.strip()}
    exif = image.getexif()
    for tag in EXIF_TEXTS:
        if isinstance(text := exif.get(tag), str) and text.strip():
            texts.setdefault(*_named_text(tag.name, text.strip("\0 ")))
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment) or exif.get(ExifTags.Base.UserComment)
    text = _decode_comment(comment) if isinstance(comment, bytes) else comment
    if isinstance(text, str) and text.strip():
        texts.setdefault(PNG_KEY, text)
    return texts


def _named_text(name: str, text: str) -> tuple[str, str]:
    """Parses `prompt:{...}` and `workflow:{...}`, which ComfyUI writes into any free EXIF field."""
    inner, _, value = text.partition(":")
    return (inner.lower(), value) if inner.lower() in ("prompt", "workflow") else (name, text)


def _assemble(fields: Mapping[str, str], prompt: str, negative: str) -> str:
    for key in fields:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot be the name of a field")
    last = ", ".join(f"{key}: {value}" for key, value in fields.items())
    middle = f"{NEGATIVE} {negative}\n" if negative else ""
    return f"{prompt}\n{middle}{last}"


def _format(value: object) -> str:
    """Writes a value as text, with JSON quotes if it would otherwise end the field early or lose its spaces."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = str(value)
    return text if not text or _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _split_fields(text: str) -> tuple[str, dict[str, str]]:
    """Returns the lines above the settings line, and the settings; more lines may follow the settings line."""
    lines = text.split("\n")
    for number in range(len(lines) - 1, -1, -1):
        if STEPS in lines[number].casefold():
            prompts, settings = _split_joined(lines[number].strip())
            fields = dict(_fields_of(settings))
            if _are_settings(fields):
                return "\n".join([*lines[:number], *prompts]), fields
    return text, {}


def _split_joined(line: str) -> tuple[list[str], str]:
    """Splits a line into prompts and settings.

    The line has prompts only if all lines were joined into it. Each mark must occur once, so that nothing is guessed.
    """
    found = list(_JOINED.finditer(line))
    if len(found) != 1 or found[0].start() == 0 or line.count(NEGATIVE) > 1:
        return [], line
    first = _NAME.match(line)
    if first is not None and first[1].casefold() in MARKS:  # settings in another order
        return [], line
    start = found[0].start()
    prompt, mark, negative = line[:start].partition(NEGATIVE)
    return [prompt.rstrip(), *([mark + negative.rstrip()] if mark else [])], line[start:]


def _are_settings(fields: Mapping[str, str]) -> bool:
    names = {name.casefold() for name in fields}
    return STEPS in names and len(names.intersection(MARKS)) >= MINIMUM_FIELDS - 1


def _fields_of(line: str) -> Iterator[tuple[str, str]]:
    """Reads `key: value` pairs separated by commas; values in quotes or JSON brackets may contain commas."""
    start, whole = 0, True
    while found := _NAME.search(line, start):
        begin = found.end()
        end, whole = _value_end(line, begin, brackets=whole)
        yield found[1].strip(), _unquote(line[begin:end].strip())
        start = end


def _value_end(line: str, begin: int, *, brackets: bool) -> tuple[int, bool]:
    """Returns the end of a value, and whether later brackets on this line may still be closed."""
    first = line[begin : begin + 1]
    if first == '"' and (quoted := _QUOTED.match(line, begin)) and _END.match(line, quoted.end()):
        return quoted.end(), brackets
    if brackets and first and first in "[{":
        end = _closing(line, begin)
        if end is not None and _END.match(line, end):
            return end, True
        brackets = end is not None
    comma = line.find(",", begin)
    return len(line) if comma < 0 else comma, brackets


def _closing(line: str, begin: int) -> int | None:
    """Returns the position after the closing bracket for the bracket at `begin`."""
    depth, place = 0, begin
    while place < len(line):
        if line[place] == '"':
            quoted = _QUOTED.match(line, place)
            if not quoted:
                return None
            place = quoted.end()
            continue
        depth += (line[place] in "[{") - (line[place] in "]}")
        place += 1
        if depth == 0:
            return place
    return None


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        return str(parse_json(value))
    except Unreadable:
        return value


def _split_prompts(body: str) -> tuple[str, str]:
    """Splits the lines into prompts; the negative prompt begins at the first line that starts with the marker."""
    lines = [line for line in body.split("\n") if not line.startswith(REMARKS)]
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip().removeprefix(NEGATIVE)
    return "\n".join(lines[:start]).strip(), negative.strip()


def _decode_comment(comment: bytes) -> str:
    """Decodes EXIF's UserComment: eight bytes for the encoding, then the text."""
    code, data = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        little = data[:2] == b"\xff\xfe" or data[1::2].count(0) > data[::2].count(0)  # if most letters are Latin
        return data.decode("utf-16-le" if little else "utf-16-be", "replace").lstrip("\ufeff")
    text = data if code in (b"ASCII\0\0\0", b"\0" * 8) else comment
    return text.decode("utf-8", "replace").strip("\0")
