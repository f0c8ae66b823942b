"""Lists the model files for drop-down lists, and suitable sizes for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.catalog.models import checkpoint_facts, size_presets
from modules.core.paths import ALL_SUFFIXES, ModelFolders
from modules.images.methods import LATENT_METHODS, PIXEL_METHODS
from ui.fields import AUTOMATIC, CONTROL_SLOTS, LORA_SLOTS, TEXT_FIELDS


@dataclass(frozen=True, kw_only=True)
class FileLists:
    """The choices of the drop-down lists for model files."""

    folders: ModelFolders

    def named(self, kind: str) -> list[tuple[str, str]]:
        return [(name, name) for name in self.folders.list(kind)]

    def optional(self, kind: str, label: str = "None") -> list[tuple[str, str]]:
        return [(label, AUTOMATIC), *self.named(kind)]

    def listed(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the form with the listed name of each model file that is given without its extension."""
        found: dict[str, Any] = {}
        for field, choices in self.lists().items():
            if field not in form:
                continue
            names = [name for _, name in choices]
            full = [f"{form[field]}{ending}" for ending in ALL_SUFFIXES if f"{form[field]}{ending}" in names]
            if form[field] not in names and len(full) == 1:
                found[field] = full[0]
        return {**form, **found}

    def hires_methods(self) -> list[tuple[str, str]]:
        latent = [(f"latent {name}", name) for name in LATENT_METHODS]
        return [(name, name) for name in PIXEL_METHODS] + latent + self.named("upscalers")

    def pixel_methods(self) -> list[tuple[str, str]]:
        return [(name, name) for name in PIXEL_METHODS] + self.named("upscalers")

    def shapes(self, checkpoint: str | None, width: int | None, height: int | None) -> dict[str, Any]:
        """Returns suitable sizes for this checkpoint, and the current one in the form.

        The list is equally long for every size, because Gradio fails if an open list becomes shorter.
        """
        side = checkpoint_facts(self.folders, checkpoint).native_size
        shapes = [(f"{shape} {wide} × {high}", f"{wide}x{high}") for shape, wide, high in size_presets(side)]
        now = f"{width}x{height}"
        return {"choices": [*shapes, ("Own size", "")], "value": now if now in dict(shapes).values() else ""}

    def lists(self) -> dict[str, list[tuple[str, str]]]:
        """Returns the choices of every list of model files, to build or refresh it."""
        return {
            "checkpoint": self.named("checkpoints"),
            "vae": self.optional("vae", "From the checkpoint"),
            **dict.fromkeys(
                TEXT_FIELDS, self.optional("text_encoders", "From the checkpoint") + self.named("checkpoints")
            ),
            "refiner": self.optional("checkpoints"),
            "hires_method": self.hires_methods(),
            **dict.fromkeys(("tiled_method", "extras_method"), self.pixel_methods()),
            **{f"lora_{slot}": self.optional("loras") for slot in range(1, LORA_SLOTS + 1)},
            **{f"control_{slot}": self.optional("controlnet") for slot in range(1, CONTROL_SLOTS + 1)},
        }
