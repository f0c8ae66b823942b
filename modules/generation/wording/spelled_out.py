"""Adds styles to a request's prompts, and chooses between their variants by each picture's seed (no torch)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from modules.catalog.styles import find_style
from modules.catalog.wildcards import wildcard_file, wildcard_lines
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions, random_seed
from modules.text.wildcards import Lines, chosen, varies, wildcard_names

USER_PROMPT = "{prompt}"  # where a style puts the user's prompt


@dataclass(frozen=True, kw_only=True)
class SpelledOut:
    """The requests that one request stands for: itself, or one for each picture if its prompts have variants.

    Their prompts are final: braces and wildcards in them are plain text.
    """

    options: GenerationOptions
    lines: Lines

    @property
    def varies(self) -> bool:
        return varies(self.options.prompt) or varies(self.options.negative_prompt)

    def __len__(self) -> int:
        return self.options.images if self.varies and self.options.only is None else 1

    def __iter__(self) -> Iterator[GenerationOptions]:
        """Yields the requests in the order of their pictures. Raises OptionsError or ModelFileError for a wildcard."""
        if not self.varies:
            yield self._said(0)
            return
        seed = random_seed() if self.options.seed is None else self.options.seed
        for index in range(self.options.images):
            if self.options.only in (None, index):
                yield replace(self._said(seed + index), seed=seed + index, number=1, batch=1, only=None)

    def _said(self, seed: int) -> GenerationOptions:
        """Returns the request with the prompts of this seed. The negative prompt makes choices of its own."""
        prompt, negative = self.options.prompt, self.options.negative_prompt
        return replace(
            self.options,
            prompt=chosen(prompt, seed, self.lines),
            negative_prompt=chosen(negative, f"negative {seed}", self.lines),
        )


def spelled_out(options: GenerationOptions, folders: ModelFolders) -> SpelledOut:
    """Raises OptionsError for a style that cannot be used."""
    return SpelledOut(options=with_styles(options, folders), lines=cache(partial(wildcard_lines, folders)))


def first_picture(options: GenerationOptions, folders: ModelFolders) -> GenerationOptions:
    """Returns what the first picture asks for; with a random seed, what it could ask for."""
    seed = 0 if options.seed is None else options.seed
    return next(iter(spelled_out(replace(options, seed=seed, number=1, batch=1, only=None), folders)))


def with_styles(options: GenerationOptions, folders: ModelFolders) -> GenerationOptions:
    """Adds the styles to both prompts, one after another. Raises OptionsError for an unknown style."""
    prompt, negative = options.prompt, options.negative_prompt
    for name in options.styles:
        style = find_style(folders, name)
        prompt, negative = merged(style.prompt, prompt), merged(style.negative_prompt, negative)
    return replace(options, prompt=prompt, negative_prompt=negative, styles=())


def merged(style: str, prompt: str) -> str:
    """Puts the prompt where the style says, or else in front of it, as A1111 does."""
    if USER_PROMPT in style:
        return style.replace(USER_PROMPT, prompt)
    return ", ".join(text for text in (prompt.strip(), style.strip()) if text) if style.strip() else prompt


def wildcard_files(options: GenerationOptions, folders: ModelFolders) -> list[Path]:
    """Returns the wildcard files that the prompts can use, also by way of others.

    Raises ModelFileError for a missing file, OptionsError for one that cannot be read.
    """
    pending = [*wildcard_names(options.prompt), *wildcard_names(options.negative_prompt)]
    paths: dict[str, Path] = {}
    while pending:
        name = pending.pop()
        if name not in paths:
            paths[name] = wildcard_file(folders, name)
            pending += wildcard_names("\n".join(wildcard_lines(folders, name)))
    return list(paths.values())
