"""Parses the prompt language: emphasis, BREAK, `<lora:...>` and other tags, mentions of embeddings (no torch).

Every function runs in time linear in the length of the text, even for malicious brackets.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from modules.core.errors import OptionsError, quoted
from modules.text.emphasis import Segment, parse_a1111, parse_comfy

EMPHASIS_MODES = ("comfy", "a1111", "no_norm", "off")
A1111_MODES = ("a1111", "no_norm")  # modes that parse prompts like A1111

_BREAK = re.compile(r"\bBREAK\b")
# A1111's "extra networks"; `lyco` is its older name for some kinds of LoRA.
_TAG = re.compile(r"<(?:(lora|lyco):([^<>]*)|[^\W\d]\w*:[^<>]+)>", re.IGNORECASE)
_TRAILING_PUNCTUATION = ".;:!?"


class LoraTag(NamedTuple):
    """One `<lora:name:model_weight:text_weight>` tag in a prompt."""

    name: str
    model_weight: float
    text_weight: float


@dataclass(frozen=True)
class Mention:
    """The place in the text where the vectors of the embedding `name` go."""

    name: str


def parse_emphasis(text: str, mode: str) -> list[Segment]:
    """Splits a prompt into pieces with one weight each; "off" treats every character literally."""
    check_emphasis(mode)
    if mode == "off":
        return [Segment(text, 1.0)]
    return parse_comfy(text) if mode == "comfy" else parse_a1111(text)


def check_emphasis(mode: str) -> None:
    """Raises OptionsError for an unknown mode."""
    if mode not in EMPHASIS_MODES:
        near = difflib.get_close_matches(mode, EMPHASIS_MODES, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise OptionsError(f"Unknown emphasis '{mode}': choose one of {', '.join(EMPHASIS_MODES)}.{hint}")


def parse_prompt(text: str, mode: str) -> list[list[Segment]]:
    """Splits a prompt's weighted pieces into sections at each BREAK (just a word in mode "off")."""
    segments = parse_emphasis(text, mode)
    if mode == "off":
        return [segments]
    sections: list[list[Segment]] = [[]]
    for segment in segments:
        first, *others = _BREAK.split(segment.text)
        sections[-1].append(segment._replace(text=first))
        sections.extend([segment._replace(text=part)] for part in others)
    return sections


def extract_loras(text: str) -> tuple[str, list[LoraTag]]:
    """Removes the `<lora:...>` tags from a prompt. A single weight applies to both networks; the default is 1.

    Tags of other networks (`other_tags`) are also removed, since they are not words.
    """
    tags = [_read_lora(match[0], match[2]) for match in _TAG.finditer(text) if match[1]]
    return _TAG.sub("", text), tags


def other_tags(text: str) -> list[str]:
    """Finds tags of unsupported networks, such as `<hypernet:name:1>`."""
    return [match[0] for match in _TAG.finditer(text) if not match[1]]


def _read_lora(tag: str, body: str) -> LoraTag:
    name, *weights = (part.strip() for part in body.split(":"))
    try:
        model_weight = float(weights[0]) if weights else 1.0
        text_weight = float(weights[1]) if len(weights) > 1 else model_weight
    except ValueError:
        model_weight = text_weight = math.nan
    if not name or len(weights) > 2 or not (math.isfinite(model_weight) and math.isfinite(text_weight)):
        raise OptionsError(f"Cannot read {quoted(tag)}: write <lora:name:0.8> or <lora:name:0.8:0.6>.")
    return LoraTag(name, model_weight, text_weight)


class MentionFinder:
    """Finds `embedding:name` and bare names in text; the longest matching name wins."""

    def __init__(self, aliases: Mapping[str, str]) -> None:
        """`aliases` maps every accepted spelling, in lower case, to the name in the library."""
        self._aliases = aliases
        pattern = r"(?<!\w)embedding:(?P<missing>[^\s,]+)"
        if aliases:
            spellings = "|".join(re.escape(alias) for alias in sorted(aliases, key=len, reverse=True))
            pattern = rf"(?<![\w/-])(?:embedding:)?(?P<known>{spellings})(?![\w/-]|\.\w)|{pattern}"
        self._pattern = re.compile(pattern, re.IGNORECASE)

    def split(self, text: str) -> list[str | Mention]:
        """Splits the text at each mention; a name after `embedding:` is a mention even if it is unknown."""
        pieces: list[str | Mention] = []
        position = 0
        for match in self._pattern.finditer(text):
            name = self._name(match)
            if not name:
                continue
            pieces += [text[position : match.start()], Mention(name)]
            position = match.end()
        return [piece for piece in [*pieces, text[position:]] if piece]

    def _name(self, match: re.Match[str]) -> str | None:
        known = match.groupdict().get("known")
        if known is None:
            return match["missing"].rstrip(_TRAILING_PUNCTUATION)
        # re folds a few letters that lower() does not (a long s matches s); such look-alikes are plain text.
        return self._aliases.get(known.lower())
