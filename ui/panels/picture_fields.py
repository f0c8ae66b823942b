"""Defines picture fields that accept the same formats as the command line; Gradio alone would open any format."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

from PIL import Image

from modules.core.errors import LightDiffusionError
from modules.images.modes import to_8_bit
from modules.images.open import FORMATS, check_header, open_image
from ui.quick_import import import_gradio

import_gradio()  # otherwise Gradio would write stubs of the classes below into this folder

import gradio as gr  # noqa: E402

BRUSH = ("#ff40a0", 0.5)  # a colour and its opacity: one sees the picture under the paint
BRUSH_SIZE = 10  # pixels


def open_our_formats_only() -> None:
    """Limits Pillow to our formats in this process, for every component and endpoint of Gradio."""
    Image.init()
    for name in set(Image.ID) - set(FORMATS):
        Image.ID.remove(name)
        Image.OPEN.pop(name, None)


class PictureEditor(gr.ImageEditor):
    """The mask editor; its picture and layers arrive upright and with 8 bits per channel."""

    is_template = True  # makes Gradio show the parent class in the browser

    def convert_and_format_image(self, file: Any, flatten_on_white: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Opens a part; Gradio calls this for the background, each layer, and the unused flattened picture."""
        del flatten_on_white  # transparency is handled in the same way everywhere
        if file is None:
            return None
        drawn = isinstance(file, (bytes, bytearray, memoryview))
        source, name = (BytesIO(file), None) if drawn else (file.path, file.orig_name)
        try:
            return to_8_bit(open_image(source, name or "in the editor"))
        except LightDiffusionError as error:
            raise gr.Error(str(error), print_exception=False) from error


def mask_editor(label: str, elem_id: str, *, sources: Sequence[Literal["upload", "clipboard"]] = ()) -> PictureEditor:
    """Builds an editor with one layer for a mask, and a translucent brush."""
    return PictureEditor(
        label=label,
        sources=list(sources),
        transforms=[],
        brush=gr.Brush(default_size=BRUSH_SIZE, colors=[BRUSH], color_mode="fixed"),
        layers=gr.LayerOptions(allow_additional_layers=False, layers=["Mask"]),
        height=400,
        format="png",
        buttons=["fullscreen"],
        elem_id=elem_id,
    )


class PictureFile(gr.Image):
    """A picture field whose file is used unchanged."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        if payload is None:
            return None
        try:
            check_header(payload.path or "", payload.orig_name or "")
        except LightDiffusionError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return payload.path
