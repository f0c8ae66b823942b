"""Handles the offer of settings for few-step models, above the sampling fields."""

from __future__ import annotations

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.generation.few_steps.offers import Offer, find_offer
from ui.events.handlers import Update
from ui.fields import LORA_SLOTS
from ui.panels import render

FILES = ("checkpoint", *(f"lora_{slot}" for slot in range(1, LORA_SLOTS + 1)))
SETTINGS = ("sampler", "scheduler", "steps", "cfg")
OUTPUTS = ("offer", "offer_panel")


class FewSteps:
    """Offers the settings that the form's models need; the user decides."""

    def __init__(self, folders: ModelFolders) -> None:
        self._folders = folders

    def look(self, sampler: str, scheduler: str, steps: int | None, cfg: float | None, *files: str | None) -> Update:
        """Shows the offer if the settings do not fit a few-step model in the form, and else hides it."""
        offer = None if steps is None or cfg is None else self._offer(*files)
        if offer is None or not offer.preset.differences(sampler, scheduler, int(steps or 0), float(cfg or 0.0)):
            return {"offer": "", "offer_panel": gr.Column(visible=False)}
        return {"offer": render.note_box(offer.sentence), "offer_panel": gr.Column(visible=True)}

    def use(self, *files: str | None) -> Update:
        """Fills the offered settings into the form."""
        offer = self._offer(*files)
        return dict(offer.preset.settings) if offer else {}

    def _offer(self, checkpoint: str | None, *loras: str | None) -> Offer | None:
        try:
            return find_offer(self._folders, checkpoint or None, [name for name in loras if name])
        except LightDiffusionError:  # a missing file, which Generate reports
            return None
