"""Chooses between the variants in a prompt: `{a|b}`, `{2$$a|b|c}`, `{0.5::a|b}` and `__name__` (no torch).

These are the forms of A1111's dynamic prompts. Braces without a bar of their own are plain text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from modules.core.errors import OptionsError, quoted

Lines = Callable[[str], Sequence[str]]  # the name of a wildcard -> its lines

DEEPEST = 32  # levels of wildcards and braces inside each other
MOST_CHOICES = 1000  # in one prompt
_TOKEN = re.compile(
    r"\\(?P<plain>[{}]|__)|__(?=[^\W_])(?P<name>(?:[^\W_]|[-/]|_(?!_))+)__|[{}|\[\]]|\\[\[\]]|[^\\{}|\[\]_]+|.",
    re.DOTALL,
)
_PLAIN = re.compile(r"\\(?:[{}]|__)")
_COUNT = re.compile(r"\s*(\d{1,4})(?:-(\d{1,4}))?\$\$(?:([^${}|]*)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})::")


@dataclass(frozen=True)
class Wildcard:
    """`__name__`: one of the lines of a file."""

    name: str


@dataclass(frozen=True)
class Choice:
    """`{a|b}`: one of the options, or several of them joined. Each option consists of pieces."""

    options: list[list[Piece]] = field(default_factory=lambda: [[]])


Piece = str | Wildcard | Choice


def varies(text: str) -> bool:
    """Tells whether the text contains a choice or a wildcard."""
    return any(not isinstance(piece, str) for piece in read_pieces(text))


def wildcard_names(text: str) -> Iterator[str]:
    """Yields the names of the wildcards in the text, those in its choices too."""
    pending = read_pieces(text)
    while pending:
        piece = pending.pop()
        if isinstance(piece, Wildcard):
            yield piece.name
        elif isinstance(piece, Choice):
            pending += (inner for option in piece.options for inner in option)


def escaped(text: str) -> str:
    """Returns text that `chosen` gives back as it is: choices and wildcards in it are plain text."""
    return re.sub(r"[{}]|__", r"\\\g<0>", text) if varies(text) or _PLAIN.search(text) else text


def chosen(text: str, seed: int | str, lines: Lines) -> str:
    """Replaces each choice and wildcard, always alike for the same seed. `\\{`, `\\}` and `\\__` become plain text.

    Raises OptionsError for wildcards that never end, and whatever `lines` raises.
    """
    return _Chooser(random.Random(seed), lines).text(read_pieces(text), 0)


def read_pieces(text: str) -> list[Piece]:
    """Splits a prompt into plain text, wildcards and choices, in time linear in its length."""
    tokens = list(_TOKEN.finditer(text))
    opened, bars, closed = _choices(tokens)
    root: list[Piece] = []
    stack: list[Choice] = []
    for index, token in enumerate(tokens):
        here = stack[-1].options[-1] if stack else root
        if index in opened:
            if len(stack) == DEEPEST:
                raise OptionsError(f"More than {DEEPEST} braces of choices are inside each other: simplify the prompt.")
            stack.append(Choice())
            here.append(stack[-1])
        elif index in bars:
            stack[-1].options.append([])
        elif index in closed:
            stack.pop()
        else:
            here.append(Wildcard(token["name"]) if token["name"] else token["plain"] or token[0])
    return _joined(root)


def _choices(tokens: Sequence[re.Match[str]]) -> tuple[set[int], set[int], set[int]]:
    """Finds the opening braces, bars and closing braces of choices. Bars in square brackets belong to those."""
    opened, bars, closed = set[int](), set[int](), set[int]()
    stack: list[tuple[int, list[int]]] = []
    for index, token in enumerate(tokens):
        if token[0] in ("{", "["):
            stack.append((index, []))
        elif token[0] == "|" and stack:
            stack[-1][1].append(index)
        elif token[0] == "]" and stack and tokens[stack[-1][0]][0] == "[":
            stack.pop()
        elif token[0] == "}":
            while stack and tokens[stack[-1][0]][0] == "[":  # never closed, so plain text
                stack.pop()
            if stack and (found := stack.pop())[1]:
                opened.add(found[0])
                bars.update(found[1])
                closed.add(index)
    return opened, bars, closed


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Joins neighbouring texts, inside of choices too."""
    joined: list[Piece] = []
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        if texts:
            joined.append("".join(texts))
            texts.clear()
        joined.append(Choice([_joined(option) for option in piece.options]) if isinstance(piece, Choice) else piece)
    return [*joined, "".join(texts)] if texts else joined


class _Chooser:
    """Makes the choices of one prompt. Each draws the next number of the same generator."""

    def __init__(self, numbers: random.Random, lines: Lines) -> None:
        self._numbers = numbers
        self._lines = lines
        self._made = 0

    def text(self, pieces: Sequence[Piece], depth: int) -> str:
        return "".join(piece if isinstance(piece, str) else self._one(piece, depth + 1) for piece in pieces)

    def _one(self, piece: Wildcard | Choice, depth: int) -> str:
        self._made += 1
        if depth > 2 * DEEPEST or self._made > MOST_CHOICES:
            inside = f" in {quoted(f'__{piece.name}__')}" if isinstance(piece, Wildcard) else ""
            raise OptionsError(
                f"The choices{inside} do not end: at most {MOST_CHOICES} are made in a prompt. "
                "Look for wildcards that name each other."
            )
        if isinstance(piece, Wildcard):
            weighed = [_weighed([line]) for line in self._lines(piece.name)]
            return "".join(self.text(read_pieces("".join(map(str, line))), depth) for line in self._drawn(weighed, 1))
        options, least, most, separator = _counted(piece.options)
        count = least + int(self._numbers.random() * (most - least + 1)) if most > least else least
        texts = [self.text(option, depth) for option in self._drawn(list(map(_weighed, options)), count)]
        return "".join(texts) if separator is None else separator.join(text.strip() for text in texts)

    def _drawn(self, options: Sequence[tuple[float, Sequence[Piece]]], count: int) -> list[Sequence[Piece]]:
        """Draws `count` different options by their weights. Those of weight 0 are never drawn."""
        rest = [(weight, option) for weight, option in options if weight > 0]
        drawn: list[Sequence[Piece]] = []
        while rest and len(drawn) < count:
            sums = list(accumulate(weight for weight, _ in rest))
            point = self._numbers.random() * sums[-1]
            place = next((index for index, total in enumerate(sums) if point < total), len(rest) - 1)
            drawn.append(rest.pop(place)[1])
        return drawn


def _counted(options: Sequence[Sequence[Piece]]) -> tuple[list[Sequence[Piece]], int, int, str | None]:
    """Takes `2$$`, `1-3$$` or `2$$ and $$` off the first option.

    Returns the options, the smallest and the largest number of them to draw, and what joins them (None without `$$`).
    """
    first = options[0]
    found = _COUNT.match(first[0]) if first and isinstance(first[0], str) else None
    if found is None:
        return list(options), 1, 1, None
    rest = [_after(first, found.end()), *options[1:]]
    bounds = (int(found[1]), int(found[2] or found[1]))
    least, most = (min(bound, len(rest)) for bound in sorted(bounds))
    return rest, least, most, ", " if found[3] is None else found[3]


def _weighed(option: Sequence[Piece]) -> tuple[float, Sequence[Piece]]:
    """Takes `0.5::` off an option; other options have the weight 1."""
    found = _WEIGHT.match(option[0]) if option and isinstance(option[0], str) else None
    return (float(found[1]), _after(option, found.end())) if found else (1.0, option)


def _after(option: Sequence[Piece], end: int) -> list[Piece]:
    """Returns the option without the start of its first text."""
    first = option[0]
    return [first[end:] if isinstance(first, str) else first, *option[1:]]
