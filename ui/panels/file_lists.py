"""Lists the model files for drop-down lists, and suitable sizes for a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modules.catalog.models import checkpoint_facts, size_presets
from modules.core.paths import ModelFolders
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

    def hires_methods(self) -> list[tuple[str, str]]:
        latent = [(f"latent {name}", name) for name in LATENT_METHODS]
        return [(name, name) for name in PIXEL_METHODS] + latent + self.named("upscalers")

    def shapes(self, checkpoint: str | None, width: int | None, height: int | None) -> dict[str, Any]:
        """Returns suitable sizes for this checkpoint, and the current one in the form."""
        side = checkpoint_facts(self.folders, checkpoint).native_size
        shapes = [(f"{shape} {wide} × {high}", f"{wide}x{high}") for shape, wide, high in size_presets(side)]
        now = f"{width}x{height}"
        if now in dict(shapes).values():
            return {"choices": shapes, "value": now}
        return {"choices": [*shapes, ("Own size", "")], "value": ""}

    def lists(self) -> dict[str, list[tuple[str, str]]]:
        """Returns the choices of every model file field, to build or refresh its list."""
        return {
            "checkpoint": self.named("checkpoints"),
            "vae": self.optional("vae", "From the checkpoint"),
            **dict.fromkeys(
                TEXT_FIELDS, self.optional("text_encoders", "From the checkpoint") + self.named("checkpoints")
            ),
            "hires_method": self.hires_methods(),
            **{f"lora_{slot}": self.optional("loras") for slot in range(1, LORA_SLOTS + 1)},
            **{f"control_{slot}": self.optional("controlnet") for slot in range(1, CONTROL_SLOTS + 1)},
        }
