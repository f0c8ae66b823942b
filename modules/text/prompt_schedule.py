"""Parses prompts that change from step to step, by A1111's rules: `[a:b:0.5]`, `[a|b]` and `AND` (no torch).

Parsing takes time linear in the length of the text, even for malicious brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from modules.core.errors import OptionsError
from modules.text.emphasis import MAX_WEIGHT

MOST_PARTS = 16  # joined by AND; each part adds a row to the network's batch
MOST_TEXTS = 128  # texts, or combinations joined by AND; the network keeps prepared data for each

_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(r"\s*[+-]?(\d+\.?|\d*\.\d+)\s*", re.ASCII)
_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_CLOSES = {"(": ")", "[": "]"}


@dataclass(frozen=True, kw_only=True)
class PassSteps:
    """The number of steps of a pass, and for a second pass also the number of steps of the first pass."""

    steps: int
    earlier: int | None = None

    def switch(self, number: str) -> int:
        """Returns the steps of this pass before a switch: a decimal number is a fraction of the pass, others are steps.

        A second pass continues the numbering: steps follow those of the first pass, and fractions run from 1 to 2.
        """
        value = float(number)
        if "." in number:
            value = (value - (self.earlier is not None)) * self.steps
        else:
            value -= self.earlier or 0
        return int(max(0.0, min(float(self.steps), value)))


@dataclass(frozen=True, kw_only=True)
class PromptSchedule:
    """The texts of a pass, one per step, for each weighted part joined by AND and for the negative prompt."""

    weights: tuple[float, ...]
    parts: tuple[tuple[str, ...], ...]
    negative: tuple[str, ...]

    def steps(self, *, negative: bool) -> list[tuple[str, ...]]:
        """Returns the texts for each step: one per part, then the negative prompt if requested."""
        return list(zip(*self.parts, *([self.negative] if negative else []), strict=True))

    @property
    def texts(self) -> list[str]:
        """Returns every distinct text."""
        return list(dict.fromkeys(text for texts in (*self.parts, self.negative) for text in texts))


def read_schedule(prompt: str, negative: str, when: PassSteps) -> PromptSchedule:
    """Parses both prompts. Raises OptionsError for too many parts or too many different texts."""
    parts = split_at_and(prompt)
    if len(parts) > MOST_PARTS:
        raise OptionsError(f"The prompt has {len(parts)} parts joined by AND; the limit is {MOST_PARTS}.")
    schedule = PromptSchedule(
        weights=tuple(weight for _, weight in parts),
        parts=tuple(texts_by_step(text, when) for text, _ in parts),
        negative=texts_by_step(negative, when),
    )
    different = max(len(schedule.texts), len(set(schedule.steps(negative=True))))
    if different > MOST_TEXTS:
        raise OptionsError(
            f"The brackets of the prompts make {different} different texts; the limit is {MOST_TEXTS}. "
            "Use fewer or shorter lists such as [a|b]."
        )
    return schedule


def plain_schedule(prompt: str, negative: str, when: PassSteps) -> PromptSchedule:
    """Returns the same texts for every step, for modes in which these brackets are plain text."""
    return PromptSchedule(weights=(1.0,), parts=((prompt,) * when.steps,), negative=(negative,) * when.steps)


def changes(text: str) -> bool:
    """Returns True if the text has brackets that change it from step to step."""
    return bool(_read(text, PassSteps(steps=1)).choices)


def split_at_and(prompt: str) -> list[tuple[str, float]]:
    """Splits the text at AND; a number after the last colon of a part is its weight."""
    texts = _AND.split(prompt)
    return [(prompt, 1.0)] if len(texts) == 1 else [_weighted(text) for text in texts]


def _weighted(part: str) -> tuple[str, float]:
    text, colon, number = part.rpartition(":")
    if not colon or not _PART_WEIGHT.fullmatch(number):
        return part, 1.0
    return text, max(-MAX_WEIGHT, min(MAX_WEIGHT, float(number)))


def texts_by_step(prompt: str, when: PassSteps) -> tuple[str, ...]:
    """Returns the prompt's text for each step."""
    read = _read(prompt, when)
    switches = {choice.until for choice in read.choices}
    cuts = range(1, when.steps + 1) if None in switches else sorted({*filter(None, switches), when.steps})
    texts = list[str]()
    for cut in cuts:
        texts += [_text_at(read.parts, cut)] * (cut - len(texts))
    return tuple(texts)


@dataclass(eq=False)
class _Choice:
    """A bracket whose text changes after a step or (if `until` is None) alternates between several texts."""

    options: list[list[_Part]]
    until: int | None = None

    def at(self, step: int) -> list[_Part]:
        if self.until is None:
            return self.options[(step - 1) % len(self.options)]
        return self.options[0 if step <= self.until else -1]


_Part = str | _Choice


@dataclass
class _Open:
    """An open bracket; `separators` are the marks between its fields. A `spoilt` bracket is just plain words."""

    bracket: str
    fields: list[list[_Part]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list[str])
    spoilt: bool = False

    def words(self, closing: str) -> list[_Part]:
        """Returns the bracket as it was written."""
        parts: list[_Part] = [self.bracket, *self.fields[0]]
        for separator, more in zip(self.separators, self.fields[1:], strict=True):
            parts += [separator, *more]
        return [*parts, closing]

    def is_emphasis(self) -> bool:
        return len(self.separators) <= (1 if self.bracket == "(" else 0) and "|" not in self.separators

    def choice(self, when: PassSteps) -> _Choice | None:
        """Returns the bracket's choice, or None if the bracket is only emphasis or words."""
        if self.bracket != "[" or len(set(self.separators)) != 1:
            return None
        if self.separators[0] == "|":
            return _Choice(self.fields)
        *options, last = self.fields
        number = "".join(part for part in last if isinstance(part, str))
        if len(options) > 2 or not _NUMBER.fullmatch(number) or any(isinstance(part, _Choice) for part in last):
            return None
        return _Choice([[], *options][-2:], when.switch(number))


@dataclass
class _Read:
    parts: list[_Part]
    choices: list[_Choice]


def _read(prompt: str, when: PassSteps) -> _Read:
    """Parses a prompt; brackets outside A1111's grammar become words, as do all brackets around them."""
    opened, choices = [_Open("")], list[_Choice]()
    for token in _TOKEN.findall(prompt):
        top = opened[-1]
        if token in _CLOSES:
            opened.append(_Open(token))
        elif token == _CLOSES.get(top.bracket):
            opened.pop()
            opened[-1].fields[-1].append(_closed(top, opened[-1], choices, when))
        elif token in (":", "|") and top.bracket:
            top.separators.append(token)
            top.fields.append([])
        else:
            top.fields[-1].append(token)
            top.spoilt |= token in (")", "]")
    while len(opened) > 1:
        unclosed = opened.pop()
        opened[-1].fields[-1].append(_together(unclosed.words("")))
    return _Read(opened[0].fields[0], choices)


def _closed(bracket: _Open, outer: _Open, choices: list[_Choice], when: PassSteps) -> _Part:
    """Returns the finished bracket as a part of the outer bracket."""
    choice = None if bracket.spoilt else bracket.choice(when)
    if choice is not None:
        choices.append(choice)
        return choice
    outer.spoilt |= bracket.spoilt or not bracket.is_emphasis()
    return _together(bracket.words(_CLOSES[bracket.bracket]))


def _together(parts: list[_Part]) -> _Choice:
    """Joins parts into a single part, so that closing a bracket does not copy its contents."""
    return _Choice([parts])


def _text_at(parts: list[_Part], step: int) -> str:
    return "".join(_walk(parts, step))


def _walk(parts: list[_Part], step: int) -> Iterator[str]:
    """Yields the text's pieces in order, without recursion, since nesting is limited only by the prompt's length."""
    pending = [iter(parts)]
    while pending:
        part = next(pending[-1], None)
        if part is None:
            pending.pop()
        elif isinstance(part, str):
            yield part
        else:
            pending.append(iter(part.at(step)))
