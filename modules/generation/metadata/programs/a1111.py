"""Reads A1111's `parameters` text, the format that Forge, SD.Next, Civitai, Fooocus (second scheme) and we write."""

from __future__ import annotations

from collections.abc import Mapping

from modules.generation.metadata.recipe import Recipe
from modules.images.metadata import PNG_KEY, parse_parameters


def read(texts: Mapping[str, str]) -> Recipe | None:
    text = texts.get(PNG_KEY, "")
    if text.count("\n") == text.count("\r\n"):  # a program on Windows wrote it
        text = text.replace("\r\n", "\n")
    prompt, negative, fields = parse_parameters(text)
    if not fields:
        return None
    program = fields.get("App") or fields.get("Version") or "AUTOMATIC1111"
    return Recipe(program=program, prompt=prompt, negative=negative, fields=fields)
