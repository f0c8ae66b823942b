"""Handles the HiresFix button under a picture: makes the second pass of a finished picture, now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modules.core.errors import LightDiffusionError
from modules.core.sizes import nearest_size
from modules.gallery.inputs import keep_file
from modules.generation.options import GenerationOptions, HiresOptions, InitImage
from modules.images.open import open_image
from ui.events.handlers import Handlers, Update
from ui.events.pictures.recall import read_options
from ui.filled_form import for_number
from ui.requests import read_hires


class Enlarging:
    """Takes the prompt, seed and models from the picture, and the settings of HiresFix from the form."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def enlarge(self, panel: str, values: Mapping[str, Any], path: str) -> Iterator[Update]:
        handlers, message = self._handlers, f"{panel}_message"
        try:
            hires = read_hires({**values, "hires": True}) or HiresOptions()
            image = keep_file(Path(path), handlers.output.folder)
            options = second_pass(for_number(read_options(Path(path), handlers).options), image, hires)
            yield from handlers.make(options, {message: ""})
        except LightDiffusionError as error:
            yield handlers.refuse(error, message)


def second_pass(options: GenerationOptions, image: Path, hires: HiresOptions) -> GenerationOptions:
    """Returns the request for HiresFix whose first pass is the finished `image`: it starts from it and changes nothing.

    An upscaler that works on latents gets the encoded picture, as in AUTOMATIC1111.
    """
    width, height = nearest_size(open_image(image).size)
    return replace(
        options,
        init=InitImage(image=image, denoise=0.0, resize="stretch"),
        width=width,
        height=height,
        hires=replace(hires, keep_first_pass=False),
        tiled=None,
    )
