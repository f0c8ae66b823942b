"""Turns brackets into weights, by ComfyUI's or A1111's rules (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
# Without a limit, thousands of nested brackets would overflow to infinity and give a black picture.
MAX_WEIGHT = 100.0

_COMFY_TOKEN = re.compile(r"\\[()]|[()]|[^\\()]+|\\")
_A1111_TOKEN = re.compile(r"\\[\\()\[\]]|\\|[()\[\]]|:\s*([+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


class Segment(NamedTuple):
    """A piece of a prompt, with its weight."""

    text: str
    weight: float


@dataclass
class _Group:
    """A bracket pair. Its factor is known once it closes, and its weight once the parent's weight is known."""

    parent: _Group | None
    factor: float
    absolute: bool = False
    empty: bool = True
    weight: float = 1.0

    def settle(self) -> None:
        outer = self.parent.weight if self.parent and not self.absolute else 1.0
        self.weight = _limit(outer * self.factor)


def _limit(weight: float) -> float:
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))


def parse_comfy(text: str) -> list[Segment]:
    """ComfyUI's rules: `(x)` multiplies by 1.1, `(x:w)` sets w inside any bracket, `\\(` and `\\)` are plain text."""
    tokens = _COMFY_TOKEN.findall(text)
    brackets = _comfy_brackets(tokens)
    root = group = _Group(None, 1.0)
    groups, pieces, pending = [root], list[tuple[str, _Group]](), list[str]()
    for index, token in enumerate(tokens):
        if index not in brackets:
            pending.append(token[-1] if token in ("\\(", "\\)") else token)
            continue
        if token == "(":
            pieces.append(("".join(pending), group))
            group.empty = False
            group = _Group(group, ROUND_FACTOR)
            groups.append(group)
        else:
            pieces.append((_take_weight("".join(pending), group), group))
            group = group.parent or root
        pending.clear()
    pieces.append(("".join(pending), group))
    for each in groups:
        each.settle()
    return [Segment(piece, owner.weight) for piece, owner in pieces if piece] or [Segment("", 1.0)]


def _take_weight(text: str, group: _Group) -> str:
    """Moves a trailing `:1.2` from the text into its group, unless the group contains only the number."""
    body, colon, number = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(number) or (group.empty and not body):
        return text
    group.factor, group.absolute = float(number), True
    return body


def _comfy_brackets(tokens: list[str]) -> set[int]:
    """Finds the round brackets that have a meaning, that is, those that form closed groups.

    A stray `)` cancels the next `(`. After a `(` that never closes, everything is literal, with one exception as in
    ComfyUI: closing brackets at the very end of the prompt belong to the outermost open brackets.
    """
    pairs, unclosed = _match_brackets(tokens, 0, len(tokens))
    if not unclosed:
        return pairs
    closers = _closers_at_end(tokens)
    end = closers[-1] if closers else len(tokens)
    inner, still_open = _match_brackets(tokens, unclosed[0], end)
    literal_from = still_open[len(closers)]
    before = {index for index in pairs if index < unclosed[0]}
    between = {index for index in inner if index < literal_from}
    return before | between | set(still_open[: len(closers)]) | set(closers)


def _closers_at_end(tokens: list[str]) -> list[int]:
    """Returns the position of each `)` at the end of the prompt, last first; weights may be in between: `):1.2)`."""
    closers, index = list[int](), len(tokens) - 1
    while tokens[index] == ")":
        closers.append(index)
        index -= 1
        text = tokens[index]
        if text[0] == ":" and _NUMBER.fullmatch(text, 1) and tokens[index - 1] == ")":
            index -= 1
    return closers


def _match_brackets(tokens: list[str], start: int, end: int) -> tuple[set[int], list[int]]:
    """Returns the positions of matched brackets, and of each `(` that is never closed."""
    matched, opened, debt = set[int](), list[int](), 0
    for index in range(start, end):
        if tokens[index] == "(":
            if debt:
                debt -= 1
            else:
                opened.append(index)
        elif tokens[index] == ")":
            if opened:
                matched |= {opened.pop(), index}
            else:
                debt += 1
    return matched, opened


def parse_a1111(text: str) -> list[Segment]:
    """A1111's rules: `(x)` and `(x:w)` multiply, `[x]` divides by 1.1; a backslash makes the next bracket plain text.

    Unclosed brackets extend to the end of the text; round and square brackets are independent.
    """
    heads = {"(": _Group(None, 1.0), "[": _Group(None, 1.0)}
    groups, pieces = list[_Group](), list[tuple[str, _Group, _Group]]()
    for match in _A1111_TOKEN.finditer(text):
        token = match[0]
        kind = {")": "(", "]": "["}.get(token[-1], token)
        if token in ("(", "["):
            heads[kind] = _Group(heads[kind], ROUND_FACTOR if kind == "(" else SQUARE_FACTOR)
            groups.append(heads[kind])
        elif kind in heads and token[0] != "\\" and (parent := heads[kind].parent) and _readable(match[1]):
            heads[kind].factor = float(match[1]) if match[1] else heads[kind].factor
            heads[kind] = parent
        else:
            pieces.append((token[1:] if token[0] == "\\" else token, heads["("], heads["["]))
    for group in groups:
        group.settle()
    segments = [Segment(piece, _limit(round_.weight * square.weight)) for piece, round_, square in pieces]
    runs = groupby(segments, key=lambda segment: segment.weight)
    return [Segment("".join(part.text for part in run), weight) for weight, run in runs] or [Segment("", 1.0)]


def _readable(number: str | None) -> bool:
    """Returns True if the text is a number; something like `1.2.3` only resembles a weight and remains text."""
    return number is None or _NUMBER.fullmatch(number) is not None
