"""Collects a picture's unusable settings in one line, each with the option that replaces it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modules.core.errors import LightDiffusionError, ModelFileError, OptionsError

MOST_TOLD = 12


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An unusable setting: `reason` is a sentence; `kind` is the type of error if it is the only problem."""

    reason: str
    option: str
    kind: type[LightDiffusionError] = OptionsError

    @property
    def flag(self) -> str:
        return f"--{self.option.replace('_', '-')}"


def as_error(problems: Sequence[Problem], lacks: Sequence[str] = ()) -> LightDiffusionError:
    """Joins all problems into one error; `lacks` lists the missing pictures, each with its option."""
    told = [*problems[:MOST_TOLD]]
    flags = list(dict.fromkeys(problem.flag for problem in told))
    words = [problem.reason for problem in told]
    if len(problems) > MOST_TOLD:
        words.append(f"{len(problems) - MOST_TOLD} more cannot be used either.")
    if flags:
        words.append(f"Give {'another' if len(told) == 1 else 'others'} with {', '.join(flags)}.")
    if lacks:
        words.append(f"These pictures are missing: {', '.join(lacks)}.")
    kinds = {problem.kind for problem in problems}
    kind = ModelFileError if kinds == {ModelFileError} and not lacks else OptionsError
    return kind(f"The picture cannot be made again as it is. {' '.join(words)}")
