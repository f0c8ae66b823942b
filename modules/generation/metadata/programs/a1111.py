"""Reads A1111's `parameters` text, also written by Forge, SD.Next, Civitai, Fooocus (second scheme) and us."""

from __future__ import annotations

from collections.abc import Mapping

from modules.generation.metadata.recipe import Recipe
from modules.images.metadata import PNG_KEY, parse_parameters


def read(texts: Mapping[str, str]) -> Recipe | None:
    text = texts.get(PNG_KEY, "")
    if text.count("\n") == text.count("\r\n"):  # written by a program on Windows
        text = text.replace("\r\n", "\n")
    prompt, negative, fields = parse_parameters(text)
    if not fields:
        return None
    program = fields.get("App") or fields.get("Version") or "AUTOMATIC1111"
    return Recipe(program=program, prompt=prompt, negative=negative, fields=fields)
