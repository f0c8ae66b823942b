"""Cuts the part round a mask out of a picture, and puts the repainted part back (no torch)."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from modules.images.resize import pad_with_border

Box = tuple[int, int, int, int]  # left, top, right and bottom in pixels; right and bottom are outside

LANCZOS = Image.Resampling.LANCZOS


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of `picture` to repaint where `mask` (grey, of the same size) is white.

    `box` may reach beyond the picture, if the picture is too narrow for the box's aspect.
    """

    picture: Image.Image
    mask: Image.Image
    box: Box

    def put_back(self, part: Image.Image) -> Image.Image:
        """Returns the whole picture with the repainted part where the mask is white; black parts stay as they are."""
        inside = _inside(self.box, self.picture.size)
        left, top, right, bottom = inside
        inner = part.resize((right - left, bottom - top), LANCZOS, box=_place_in(self.box, inside, *part.size))
        whole = self.picture.copy()
        whole.paste(inner, (left, top), self.mask.crop(inside))
        return whole


def cut_out(image: Image.Image, box: Box, width: int, height: int) -> Image.Image:
    """Cuts a box out of a picture, at width x height pixels. What lies beyond the picture repeats its border."""
    inside = _inside(box, image.size)
    left, top, right, bottom = _place_in(box, inside, width, height)
    inner = image.resize((right - left, bottom - top), LANCZOS, box=inside)
    return pad_with_border(inner, width, height, left, top)


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Returns the box without what lies beyond a picture of this size."""
    left, top, right, bottom = box
    return max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])


def _place_in(box: Box, inside: Box, width: int, height: int) -> Box:
    """Returns where the inside of a box lies in a part of width x height pixels."""
    x_scale, y_scale = width / (box[2] - box[0]), height / (box[3] - box[1])
    left, right = (round((side - box[0]) * x_scale) for side in inside[0::2])
    top, bottom = (round((side - box[1]) * y_scale) for side in inside[1::2])
    return left, top, max(right, left + 1), max(bottom, top + 1)  # a sliver keeps one pixel


def region_round(picture: Image.Image, mask: Image.Image, padding: int, width: int, height: int) -> Region:
    """Returns the part round the mask's pixels that are not black, with the aspect of width x height.

    `padding` counts the picture's pixels on each side. A black mask gives the whole picture.
    """
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    left, top = max(0, left - padding), max(0, top - padding)
    right, bottom = min(mask.width, right + padding), min(mask.height, bottom + padding)
    wide, tall = right - left, bottom - top
    left, right = _grown(left, right, max(wide, round(tall * width / height)), mask.width)
    top, bottom = _grown(top, bottom, max(tall, round(wide * height / width)), mask.height)
    return Region(picture=picture, mask=mask, box=(left, top, right, bottom))


def _grown(start: int, end: int, length: int, most: int) -> tuple[int, int]:
    """Grows a span to both sides, and moves it into 0..most, or to the middle if it is longer."""
    start -= (length - (end - start)) // 2
    start = (most - length) // 2 if length > most else min(max(start, 0), most - length)
    return start, start + length
