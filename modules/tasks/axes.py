"""The axes of X/Y grids: the options to vary, their values, and the resulting requests (no torch here)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from modules.core.errors import OptionsError, printable, quoted
from modules.generation.option_table import PLAIN_OPTIONS
from modules.generation.options import GenerationOptions
from modules.sampling.names import sampler_and_scheduler

MOST_CELLS = 100
LONGEST_VALUES = 10_000  # in total, for all values of one axis
LONGEST_LABEL = 200  # a longer label beside a picture would be unreadable
WHOLE_NUMBER = re.compile("[0-9]{1,19}")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """An option that a grid can vary, and the function that reads its values."""

    label: str
    read: Callable[[str], Any]
    option: str


READERS: dict[str, Callable[[str], Any]] = {"whole": int, "number": float, "text": str}
VARIABLES: dict[str, Variable] = {
    variable.option: variable
    for variable in (
        *(
            Variable(label=option.label, read=READERS[option.kind], option=option.name)
            for option in PLAIN_OPTIONS
            if option.axis
        ),
        Variable(label="Seed", read=int, option="seed"),
        Variable(label="Width", read=int, option="width"),
        Variable(label="Height", read=int, option="height"),
        Variable(label="Negative prompt", read=str, option="negative_prompt"),
        Variable(label="Denoise", read=float, option="denoise"),
        Variable(label="Prompt: replace the first by each", read=str, option="replace"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a grid: an option and its values, in display order."""

    option: str
    values: tuple[Any, ...]

    def labels(self) -> list[str]:
        name = "" if self.option == "replace" else f"{VARIABLES[self.option].label} "
        texts = [f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}" for value in self.values]
        return [printable(text[-LONGEST_LABEL:]) for text in texts]

    def apply(self, options: GenerationOptions, value: Any) -> GenerationOptions:
        """Returns the request with this option set to this value."""
        if self.option == "denoise":
            return with_denoise(options, value)
        if self.option == "replace":
            return replace(options, prompt=options.prompt.replace(self.values[0], value))
        return replace(options, **{self.option: value})


def with_denoise(options: GenerationOptions, value: float) -> GenerationOptions:
    """Returns the request with this denoise for its start picture or, without one, for its second pass."""
    if options.init is not None:
        return replace(options, init=replace(options.init, denoise=value))
    if options.hires is not None:
        return replace(options, hires=replace(options.hires, denoise=value))
    raise OptionsError("Denoise can only vary with a picture to start from or with HiresFix; switch one of them on.")


def read_axis(option: str, text: str) -> Axis:
    """Reads an axis from `10, 20, 30` (or `1-5` for whole numbers). Use | between values that contain commas.

    Raises OptionsError for invalid values.
    """
    if option not in VARIABLES:
        raise OptionsError(f"A grid cannot vary {quoted(option)}; choose one of {', '.join(VARIABLES)}.")
    variable = VARIABLES[option]
    if len(text) > LONGEST_VALUES:
        raise OptionsError(f"{variable.label}: the values are over {LONGEST_VALUES} characters long; leave some out.")
    parts = [part.strip() for part in text.split("|" if "|" in text else ",")]
    parts = [part for part in parts if part]
    if variable.read is int:
        parts = [number for part in parts for number in expand_range(part)]
    if not parts:
        raise OptionsError(f"{variable.label} has no values; write them with commas between, for example 10, 20, 30.")
    if option == "crop" and "|" not in text and len(parts) > 1:
        raise OptionsError("Crop: write | between values, since each has a comma itself, for example 0,0 | 0,128.")
    try:
        return Axis(option=option, values=tuple(variable.read(part) for part in parts))
    except ValueError:
        raise OptionsError(f"{variable.label}: {quoted(text)} contains something that is not a number.") from None


def expand_range(part: str) -> list[str]:
    """Expands `3-6` to 3 4 5 6; returns any other text unchanged."""
    first, dash, last = part.partition("-")
    if not (dash and WHOLE_NUMBER.fullmatch(first.strip()) and WHOLE_NUMBER.fullmatch(last.strip())):
        return [part]
    if int(last) - int(first) >= MOST_CELLS:
        raise OptionsError(f"{part} is too many values; a grid holds at most {MOST_CELLS} pictures.")
    return [str(number) for number in range(int(first), int(last) + 1)]


def grid_cells(options: GenerationOptions, across: Axis, down: Axis | None) -> list[GenerationOptions]:
    """Returns the requests row by row, each for one picture.

    Raises OptionsError for an invalid value before anything is generated.
    """
    rows = [options] if down is None else [down.apply(options, value) for value in down.values]
    if len(rows) * len(across.values) > MOST_CELLS:
        raise OptionsError(
            f"That is {len(rows) * len(across.values)} pictures; a grid holds at most {MOST_CELLS}, leave some out."
        )
    if down is not None and down.option == across.option:
        raise OptionsError("Both axes of the grid vary the same option; choose another one for the rows.")
    for axis in (across, down):
        if axis is not None and axis.option == "replace" and axis.values[0] not in options.prompt:
            raise OptionsError(f"The prompt does not contain {quoted(axis.values[0])}, the text to replace.")
    cells = [of_one_picture(across.apply(row, value)) for row in rows for value in across.values]
    for cell in cells:
        sampler_and_scheduler(cell.sampler, cell.scheduler)
    return cells


def of_one_picture(options: GenerationOptions) -> GenerationOptions:
    hires = options.hires and replace(options.hires, keep_first_pass=False)
    return replace(options, number=1, batch=1, only=None, hires=hires)
