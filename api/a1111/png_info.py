"""A1111's png-info: the settings inside a picture, as one text and as fields."""

from __future__ import annotations

from typing import Any

from api.desk import Desk
from api.fields import Fields
from api.pictures import picture_bytes
from modules.images.metadata import PNG_KEY, parse_parameters, texts_of
from modules.images.open import opened


def png_info(desk: Desk, asked: Fields) -> dict[str, Any]:
    """Answers `info` (empty without settings), its fields as `parameters`, and all texts as `items`."""
    with opened(picture_bytes(asked.data("image"), "image"), "image") as image:
        image.load()
        texts = texts_of(image)
    text = texts.get(PNG_KEY, "")
    return {"info": text, "items": texts, "parameters": fields_of(text) if text else {}}


def fields_of(text: str) -> dict[str, str]:
    """Returns A1111's names: the size is split into Size-1 and Size-2."""
    prompt, negative, fields = parse_parameters(text)
    width, _, height = fields.get("Size", "").partition("x")
    sides = {"Size-1": width, "Size-2": height} if height else {}
    return {"Prompt": prompt, "Negative prompt": negative, **fields, **sides}
