"""The fields of the page that take pictures, reading them as the command line does; Gradio would open any format."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image

from modules.core.errors import LightDiffusionError
from modules.images.modes import to_8_bit
from modules.images.open import FORMATS, check_header, open_image
from ui.quick_import import import_gradio

import_gradio()  # Gradio would write stubs of the classes below into this folder

import gradio as gr  # noqa: E402


def open_our_formats_only() -> None:
    """From here on Pillow opens nothing else in this process, whichever component or endpoint of Gradio asks."""
    Image.init()
    for name in set(Image.ID) - set(FORMATS):
        Image.ID.remove(name)
        Image.OPEN.pop(name, None)


class PictureEditor(gr.ImageEditor):
    """The mask editor; its picture and layers arrive upright and with 8 bits a channel."""

    is_template = True  # for Gradio: the browser shows the parent

    def convert_and_format_image(self, file: Any, flatten_on_white: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Gradio's name; called for the background, each layer, and all together (flattened), which nobody needs."""
        del flatten_on_white  # transparency has one rule for all of the program
        if file is None:
            return None
        drawn = isinstance(file, (bytes, bytearray, memoryview))
        source, name = (BytesIO(file), None) if drawn else (file.path, file.orig_name)
        try:
            return to_8_bit(open_image(source, name or "in the editor"))
        except LightDiffusionError as error:
            raise gr.Error(str(error), print_exception=False) from error


class PictureFile(gr.Image):
    """A picture whose file is used as it is."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        if payload is None:
            return None
        try:
            check_header(payload.path or "", payload.orig_name or "")
        except LightDiffusionError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return payload.path
