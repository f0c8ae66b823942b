"""Handles the pictures for ControlNets: chooses a preprocessor for them, and shows what it makes of them."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from modules.controlnet.preprocessors import hint_picture, is_edge_map
from modules.core.errors import LightDiffusionError
from modules.images.open import open_image
from ui.events.handlers import Update

LARGEST_MAP = 1024  # pixels a side


class ControlMaps:
    """The handlers of one ControlNet slot."""

    def __init__(self, slot: int) -> None:
        self._name = f"control_{slot}"

    def preselect(self, net: str | None, preprocessor: str, path: str | None) -> Update:
        """Chooses canny for a canny ControlNet whose picture is not yet an edge map."""
        if not path or preprocessor != "none" or "canny" not in (net or "").lower():
            return {}
        try:
            drawn = is_edge_map(open_image(Path(path)))
        except LightDiffusionError:  # Generate reports it
            return {}
        return {} if drawn else {f"{self._name}_preprocessor": "canny"}

    def show(self, preprocessor: str, path: str | None, width: int | None, height: int | None) -> Update:
        """Shows the map that the ControlNet will see, unless it is the picture itself."""
        hidden = {f"{self._name}_map": gr.Image(value=None, visible=False)}
        if not path or preprocessor == "none":
            return hidden
        size = [max(8, min(int(side or 0), LARGEST_MAP)) for side in (width, height)]
        try:
            made = hint_picture(open_image(Path(path)), size[0], size[1], preprocessor)
        except LightDiffusionError:  # Generate reports it
            return hidden
        return {f"{self._name}_map": gr.Image(value=made, visible=True)}
