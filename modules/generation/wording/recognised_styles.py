"""Finds the styles in a finished prompt, as A1111 does when it reads a picture's settings (no torch)."""

from __future__ import annotations

from dataclasses import replace

from modules.catalog.styles import Style, read_styles
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.wording.spelled_out import USER_PROMPT, merged


def recognised_styles(options: GenerationOptions, folders: ModelFolders) -> GenerationOptions:
    """Takes the styles out of the prompts and names them instead; together they give the same prompts again.

    The style that was added last is found first. Raises OptionsError for a file of styles that cannot be read.
    """
    left = {style.name: style for style in read_styles(folders)}
    prompt, negative, names = options.prompt, options.negative_prompt, list[str]()
    while found := next((style for style in left.values() if _both(style, prompt, negative)), None):
        prompt, negative = _both(found, prompt, negative) or (prompt, negative)
        names.insert(0, left.pop(found.name).name)
    return replace(options, prompt=prompt, negative_prompt=negative, styles=(*names, *options.styles))


def _both(style: Style, prompt: str, negative: str) -> tuple[str, str] | None:
    """Returns the prompts without the style, or None if either does not contain it."""
    first, second = _without(style.prompt, prompt), _without(style.negative_prompt, negative)
    no_text = not style.prompt.strip() and not style.negative_prompt.strip()
    return None if first is None or second is None or no_text else (first, second)


def _without(style: str, text: str) -> str | None:
    """Returns what the style was added to, or None if adding it does not give exactly this text."""
    if not style.strip():
        return text
    before, _, after = style.partition(USER_PROMPT) if USER_PROMPT in style else ("", "", f", {style.strip()}")
    if text == style.strip():
        return ""
    rest = text.removeprefix(before).removesuffix(after)
    return rest if merged(style, rest) == text else None
