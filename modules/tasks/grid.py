"""X/Y grids: one request varied along one or two options, and the labelled picture of the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from modules.core.errors import OptionsError, printable, quoted
from modules.generation.options import GenerationOptions
from modules.sampling.names import sampler_and_scheduler

MOST_CELLS = 100
MOST_PIXELS = 100_000_000
LONGEST_VALUES = 10_000  # characters of all values of one direction
LONGEST_LABEL = 200  # characters; more cannot be read beside a picture
WHOLE = re.compile("[0-9]{1,19}")
MARGIN = 8
TEXT_COLOUR, PAPER = (20, 20, 24), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Variable:
    """An option that a grid can vary, and how one value of it is read."""

    label: str
    read: Callable[[str], Any]
    option: str


def _number(text: str) -> float:
    return float(text)


VARIABLES: dict[str, Variable] = {
    variable.option: variable
    for variable in (
        Variable(label="Steps", read=int, option="steps"),
        Variable(label="CFG", read=_number, option="cfg"),
        Variable(label="Seed", read=int, option="seed"),
        Variable(label="Sampler", read=str, option="sampler"),
        Variable(label="Scheduler", read=str, option="scheduler"),
        Variable(label="Checkpoint", read=str, option="checkpoint"),
        Variable(label="VAE", read=str, option="vae"),
        Variable(label="Clip skip", read=int, option="clip_skip"),
        Variable(label="Emphasis", read=str, option="emphasis"),
        Variable(label="Width", read=int, option="width"),
        Variable(label="Height", read=int, option="height"),
        Variable(label="Stable-Fast", read=str, option="stable_fast"),
        Variable(label="Negative prompt", read=str, option="negative_prompt"),
        Variable(label="Denoise", read=_number, option="denoise"),
        Variable(label="Prompt: replace the first by each", read=str, option="replace"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The values of one option, in the order in which they are shown."""

    variable: Variable
    values: tuple[Any, ...]

    def labels(self) -> list[str]:
        name = "" if self.variable.option == "replace" else f"{self.variable.label} "
        texts = [f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}" for value in self.values]
        return [printable(text[-LONGEST_LABEL:]) for text in texts]

    def apply(self, options: GenerationOptions, value: Any) -> GenerationOptions:
        """The request with this option at this value."""
        option = self.variable.option
        if option == "denoise":
            return with_denoise(options, value)
        if option == "replace":
            return replace(options, prompt=options.prompt.replace(self.values[0], value))
        return replace(options, **{option: value})


def with_denoise(options: GenerationOptions, value: float) -> GenerationOptions:
    """The picture's denoise if there is one, else the second pass's."""
    if options.init is not None:
        return replace(options, init=replace(options.init, denoise=value))
    if options.hires is not None:
        return replace(options, hires=replace(options.hires, denoise=value))
    raise OptionsError("Denoise can only vary with a picture to start from or with HiresFix; switch one of them on.")


def read_axis(option: str, text: str) -> Axis:
    """`10, 20, 30` (or `1-5` for whole numbers) -> an axis; values are separated by commas, or by | when they hold
    commas themselves."""
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
    try:
        return Axis(variable=variable, values=tuple(variable.read(part) for part in parts))
    except ValueError:
        raise OptionsError(f"{variable.label}: {quoted(text)} holds something that is not a number.") from None


def expand_range(part: str) -> list[str]:
    """`3-6` -> 3 4 5 6; anything else as it is."""
    first, dash, last = part.partition("-")
    if not (dash and WHOLE.fullmatch(first.strip()) and WHOLE.fullmatch(last.strip())):
        return [part]
    if int(last) - int(first) >= MOST_CELLS:
        raise OptionsError(f"{part} is too many values; a grid holds at most {MOST_CELLS} pictures.")
    return [str(number) for number in range(int(first), int(last) + 1)]


def grid_cells(options: GenerationOptions, across: Axis, down: Axis | None) -> list[GenerationOptions]:
    """The requests, row by row, each of one picture. Raises OptionsError for a value that cannot be and for a sheet
    that would be too large, before anything is generated; a size left out is not known before the checkpoint is."""
    rows = [options] if down is None else [down.apply(options, value) for value in down.values]
    if len(rows) * len(across.values) > MOST_CELLS:
        raise OptionsError(
            f"That is {len(rows) * len(across.values)} pictures; a grid holds at most {MOST_CELLS}, leave some out."
        )
    if down is not None and down.variable == across.variable:
        raise OptionsError("Both directions of the grid vary the same option; choose another one for the rows.")
    for axis in (across, down):
        if axis is not None and axis.variable.option == "replace" and axis.values[0] not in options.prompt:
            raise OptionsError(f"The prompt does not hold {quoted(axis.values[0])}, the text that the others replace.")
    cells = [of_one_picture(across.apply(row, value)) for row in rows for value in across.values]
    for cell in cells:
        sampler_and_scheduler(cell.sampler, cell.scheduler)
    sizes = [size for cell in cells if (size := final_size(cell)) is not None]
    if sizes:
        Layout.of(sizes, across, down)
    return cells


def of_one_picture(options: GenerationOptions) -> GenerationOptions:
    hires = options.hires and replace(options.hires, keep_first_pass=False)
    return replace(options, number=1, batch=1, only=None, hires=hires)


def final_size(options: GenerationOptions) -> tuple[int, int] | None:
    """Width and height of the picture in pixels, None where the checkpoint decides."""
    if options.width is None or options.height is None:
        return None
    return options.hires.target(options.width, options.height) if options.hires else (options.width, options.height)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things are on the sheet, in pixels: one cell's size, and the room left of and above the first one."""

    cell: tuple[int, int]
    left: int
    top: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    size: tuple[int, int]

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]], across: Axis, down: Axis | None) -> Layout:
        """For pictures of these sizes. Raises OptionsError where the sheet would be too large."""
        columns, rows = len(across.values), len(down.values) if down else 1
        width, height = (max(sides) for sides in zip(*sizes, strict=True))
        text_size = max(11, min(28, width // 14))
        font = ImageFont.load_default(size=text_size)
        labels = down.labels() if down else []
        longest = min(max((int(font.getlength(label)) for label in labels), default=0), 3 * width)
        left = longest + (2 * MARGIN if labels else MARGIN)
        top = text_size + 2 * MARGIN
        size = left + columns * (width + MARGIN), top + rows * (height + MARGIN)
        if size[0] * size[1] > MOST_PIXELS:
            raise OptionsError(
                f"The grid would be {size[0]}x{size[1]} pixels, at most {MOST_PIXELS // 10**6} megapixels can be: "
                "take fewer values or a smaller size."
            )
        return cls(cell=(width, height), left=left, top=top, font=font, size=size)

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Left and upper edge of a cell."""
        return self.left + column * (self.cell[0] + MARGIN), self.top + row * (self.cell[1] + MARGIN)


def paste_grid(pictures: Sequence[Image.Image], across: Axis, down: Axis | None) -> Image.Image:
    """One sheet: a heading over each column, a label before each row, pictures centred in their cells."""
    layout = Layout.of([picture.size for picture in pictures], across, down)
    width, height = layout.cell
    sheet = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(across.labels()):
        place = layout.corner(column, 0)[0] + width // 2, layout.top // 2
        draw.text(place, shorten(label, layout.font, width), TEXT_COLOUR, layout.font, anchor="mm")
    for row, label in enumerate(down.labels() if down else []):
        place = layout.left - MARGIN, layout.corner(0, row)[1] + height // 2
        draw.text(place, label, TEXT_COLOUR, layout.font, anchor="rm")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, len(across.values))
        x, y = layout.corner(column, row)
        sheet.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
    return sheet


def shorten(label: str, font: Any, width: int) -> str:
    """As much of a label as fits, its end, which tells values apart."""
    if font.getlength(label) <= width:
        return label
    while len(label) > 1 and font.getlength("…" + label) > width:
        label = label[1:]
    return "…" + label
