"""The sheet of an X/Y grid: all pictures on one, with a label for each value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from modules.core.errors import OptionsError
from modules.tasks.axes import Axis

MOST_SHEET_PIXELS = 100_000_000
MARGIN = 8
TEXT_COLOUR, PAPER = (20, 20, 24), (255, 255, 255)


def paste_grid(pictures: Sequence[Image.Image], across: Axis, down: Axis | None) -> Image.Image:
    """One sheet, with a heading over each column, a label before each row, and the pictures centred in their cells."""
    columns = len(across.values)
    rows = math.ceil(len(pictures) / columns)
    cell_width, cell_height = max(p.width for p in pictures), max(p.height for p in pictures)
    text_size = max(11, min(28, cell_width // 14))
    font = ImageFont.load_default(size=text_size)
    row_labels = down.labels() if down else []
    left = max((int(font.getlength(label)) for label in row_labels), default=0)
    left = min(left, 3 * cell_width) + (2 * MARGIN if row_labels else MARGIN)
    top = text_size + 2 * MARGIN
    size = left + columns * (cell_width + MARGIN), top + rows * (cell_height + MARGIN)
    if size[0] * size[1] > MOST_SHEET_PIXELS:
        raise OptionsError(f"The grid would be {size[0]}x{size[1]} pixels; take fewer values or a smaller size.")
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(across.labels()):
        middle = left + column * (cell_width + MARGIN) + cell_width // 2
        draw.text((middle, top // 2), shorten(label, font, cell_width), TEXT_COLOUR, font, anchor="mm")
    for row, label in enumerate(row_labels):
        middle = top + row * (cell_height + MARGIN) + cell_height // 2
        draw.text((left - MARGIN, middle), label, TEXT_COLOUR, font, anchor="rm")
    for index, picture in enumerate(pictures):
        x = left + index % columns * (cell_width + MARGIN) + (cell_width - picture.width) // 2
        y = top + index // columns * (cell_height + MARGIN) + (cell_height - picture.height) // 2
        sheet.paste(picture, (x, y))
    return sheet


def shorten(label: str, font: Any, width: int) -> str:
    """The end of a label, as much as fits: the end tells values apart."""
    if font.getlength(label) <= width:
        return label
    while len(label) > 1 and font.getlength("…" + label) > width:
        label = label[1:]
    return "…" + label
