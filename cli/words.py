"""Reads the positional arguments: either pictures, or prompt, width, height, number, batch."""

from __future__ import annotations

import difflib
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cli.values import either, path, whole
from modules.core.errors import OptionsError, quoted
from modules.generation.option_table import STABLE_FAST_LEVELS

NAMES = ("prompt", "width", "height", "number", "batch")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LIKE_LEVELS = (*STABLE_FAST_LEVELS, "fast", "none")  # words that people use as a level


def read_words(words: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the words' values by name. Raises OptionsError for an invalid, extra, or duplicate value."""
    pictures: list[Path] = []
    if "from_image" in given:  # a shell expands *.png to one word per file
        pictures = [_picture(word) for word in words if _names_a_file(word)]
        words = [word for word in words if not _names_a_file(word)]
    names = NAMES[1:] if "prompts" in given else NAMES
    if "prompts" in given and words and not re.search(r"\d", words[0]):
        raise OptionsError(f"{quoted(words[0])} is a prompt, but --prompts gives the prompts: remove one of them.")
    if len(words) > len(names):
        raise OptionsError(
            f"{quoted(words[len(names)])} is one word too many: only {', '.join(names)} can stand without an "
            "option; a prompt of several words needs quotes."
        )
    values = {name: _read(name, word) for name, word in zip(names, words, strict=False)}
    for name, value in values.items():
        if name in given:
            raise OptionsError(f"The {name} is given twice, {quoted(value)} and --{name}: remove one of them.")
    return {**values, "from_image": [*given["from_image"], *pictures]} if pictures else values


def _names_a_file(word: str) -> bool:
    return word.lower().endswith(PICTURES) or os.path.isfile(word)


def _picture(word: str) -> Path:
    try:
        return path(word)
    except ArgumentTypeError as error:
        raise OptionsError(f"--from-image: {error}.") from None


def _read(name: str, word: str) -> Any:
    if name == "prompt":
        return word
    try:
        return whole(word)
    except ArgumentTypeError as error:
        raise OptionsError(f"{name}: {error}{_remedy(word)}; see --help.") from None


def _remedy(word: str) -> str:
    if size := re.fullmatch(r"(\d{1,5})\s*[xX×*,]\s*(\d{1,5})", word):
        return f": write {size[1]} {size[2]}"
    return "" if re.search(r"\d", word) else ": put the prompt in quotes"


def join_levels(argv: Sequence[str]) -> list[str]:
    """Joins --stable-fast and its level into one word; any other word may be the prompt and stays separate.

    Raises OptionsError for a word that looks like a misspelt level.
    """
    joined: list[str] = []
    for position, argument in enumerate(argv):
        behind = bool(joined) and joined[-1] == "--stable-fast"
        if behind and argument in STABLE_FAST_LEVELS:
            joined[-1] = f"--stable-fast={argument}"
            continue
        if behind:
            _check_no_level(argument, argv[position + 1 : position + 2])
        joined.append(argument)
    return ["--stable-fast=full" if argument == "--stable-fast" else argument for argument in joined]


def refuse_scale(argv: Sequence[str]) -> None:
    """Rejects a small number behind --hires-fix: meant as its scale, it would become the number of pictures.

    Raises OptionsError.
    """
    for option, word in pairwise(argv):
        if option == "--":
            return
        if option == "--hires-fix" and re.fullmatch(r"[1-4]([.,]\d+)?[xX]?", word):
            scale = word.rstrip("xX").replace(",", ".")
            count = f" If {word} is a number of pictures, write it before --hires-fix." if word.isdigit() else ""
            raise OptionsError(f"--hires-fix takes no value: write --hires-scale {scale} to enlarge by {scale}.{count}")


def _check_no_level(word: str, following: Sequence[str]) -> None:
    """Rejects a single word as the prompt if it nearly matches a level, or if the word after it is not a width."""
    if word.startswith("-") or not word or " " in word:
        return
    near = difflib.get_close_matches(word[:20].lower(), LIKE_LEVELS, n=1)
    shifted = [text for text in following if not text.startswith("-") and not re.match(r"\d", text)]
    if near or shifted:
        meant = f" Did you mean {near[0]}?" if near and near[0] in STABLE_FAST_LEVELS else ""
        raise OptionsError(
            f"--stable-fast has no level {quoted(word)}; choose {either(STABLE_FAST_LEVELS)}.{meant} "
            "If it belongs to the prompt, write the prompt in quotes before --stable-fast."
        )
