"""Draws the sheet of an X/Y grid: all its pictures, with a label for each value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions
from modules.tasks.axes import Axis

MOST_SHEET_PIXELS = 100_000_000
MARGIN = 8
TEXT_COLOUR, PAPER = (20, 20, 24), (255, 255, 255)


def check_sheet(cells: Sequence[GenerationOptions], across: Axis, down: Axis | None) -> None:
    """Raises OptionsError for a sheet that would be too large.

    A default size is only known once the checkpoint is loaded, so it is not checked here.
    """
    sizes = [size for cell in cells if (size := final_size(cell)) is not None]
    if sizes:
        SheetLayout.of(sizes, across, down)


def final_size(options: GenerationOptions) -> tuple[int, int] | None:
    """Returns the picture's width and height in pixels, or None if they depend on the checkpoint or a start picture."""
    if options.width is None or options.height is None or options.tiled is not None:
        return None
    return options.hires.target(options.width, options.height) if options.hires else (options.width, options.height)


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """Positions on the sheet, in pixels: the size of a cell, and the space left of and above the first cell."""

    cell: tuple[int, int]
    left: int
    top: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    size: tuple[int, int]

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]], across: Axis, down: Axis | None) -> SheetLayout:
        """Computes the layout for pictures of these sizes. Raises OptionsError if the sheet would be too large."""
        columns, rows = len(across.values), len(down.values) if down else 1
        width, height = (max(sides) for sides in zip(*sizes, strict=True))
        text_size = max(11, min(28, width // 14))
        font = ImageFont.load_default(size=text_size)
        labels = down.labels() if down else []
        longest = min(max((int(font.getlength(label)) for label in labels), default=0), 3 * width)
        left = longest + (2 * MARGIN if labels else MARGIN)
        top = text_size + 2 * MARGIN
        size = left + columns * (width + MARGIN), top + rows * (height + MARGIN)
        if size[0] * size[1] > MOST_SHEET_PIXELS:
            raise OptionsError(
                f"The grid would be {size[0]}x{size[1]} pixels, and at most {MOST_SHEET_PIXELS // 10**6} megapixels "
                "are possible: take fewer values or a smaller size."
            )
        return cls(cell=(width, height), left=left, top=top, font=font, size=size)

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Returns the left and upper edge of a cell."""
        return self.left + column * (self.cell[0] + MARGIN), self.top + row * (self.cell[1] + MARGIN)


def paste_grid(pictures: Sequence[Image.Image], across: Axis, down: Axis | None) -> Image.Image:
    """Builds the sheet: a heading over each column, a label before each row, pictures centred in their cells."""
    layout = SheetLayout.of([picture.size for picture in pictures], across, down)
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
    """Shortens a label to fit; keeps its end, which distinguishes the values."""
    if font.getlength(label) <= width:
        return label
    while len(label) > 1 and font.getlength("…" + label) > width:
        label = label[1:]
    return "…" + label
