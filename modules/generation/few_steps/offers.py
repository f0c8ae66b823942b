"""Offers the settings of few-step models that a request uses, and fills them in on request (no torch)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modules.catalog.headers import header_metadata
from modules.core.errors import quoted
from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import checkpoint_path
from modules.generation.few_steps.presets import PRESETS, Preset, preset_in
from modules.generation.options import GenerationOptions
from modules.sampling.names import label_of, resolve_sampler
from modules.text.prompt import extract_loras

TITLES = ("modelspec.title", "ss_output_name")  # where a file's header repeats its name
LONGEST_TITLE = 200  # characters that are looked at


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A few-step model among the files of a request, with its preset."""

    file: str
    preset: Preset

    @property
    def sentence(self) -> str:
        """Says what was recognised and the settings that fit, for a page with a button."""
        preset = self.preset
        sampler, scheduler = label_of(preset.sampler, preset.scheduler)
        cfg = "" if preset.cfg is None else f", CFG {preset.cfg:g}"
        return f"{self._recognised} Settings that fit: {sampler}, {scheduler}, {preset.steps} steps{cfg}."

    def flags(self, differences: dict[str, Any]) -> str:
        """Says what was recognised and the options to give, for a command line."""
        words = " ".join(f"--{name} {_written(value)}" for name, value in differences.items())
        return f"{self._recognised} Give --preset {self.preset.name}, which here means {words}."

    @property
    def _recognised(self) -> str:
        return f"{quoted(self.file)} looks like a few-step model ({self.preset.label}), which {self.preset.reason}."


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def find_offer(folders: ModelFolders, checkpoint: str | None, loras: Iterable[str]) -> Offer | None:
    """Returns the offer of the first LoRA that suggests a preset, or else that of the checkpoint, or None.

    Raises ModelFileError for a missing file.
    """
    for name in loras:
        path = folders.find("loras", name)
        if preset := _suggested(path, lora=True):
            return Offer(file=_name(path), preset=preset)
    path = checkpoint_path(folders, checkpoint)
    preset = _suggested(path, lora=False)
    return Offer(file=_name(path), preset=preset) if preset else None


def offer_of(options: GenerationOptions, folders: ModelFolders) -> str | None:
    """Returns a sentence that names the options to give, if the request does not fit a few-step model in it."""
    offer = find_offer(folders, options.checkpoint, _loras(options))
    if offer is None:
        return None
    differences = offer.preset.differences(options.sampler, options.scheduler, options.steps, options.cfg)
    return offer.flags(differences) if differences else None


def with_preset(
    options: GenerationOptions, name: str, given: Collection[str], folders: ModelFolders
) -> GenerationOptions:
    """Fills the preset's settings into a request, apart from those in `given`, the names of options set by the user.

    The number of steps is the one in the name of the request's file, if that suggests the same preset.
    """
    offer = find_offer(folders, options.checkpoint, _loras(options))
    preset = offer.preset if offer and offer.preset.name == name else PRESETS[name]
    settings = {key: value for key, value in preset.settings.items() if key not in given}
    if "sampler" in given and resolve_sampler(options.sampler).scheduler is not None:
        settings.pop("scheduler", None)  # the sampler's label includes one
    return replace(options, **settings)


def _loras(options: GenerationOptions) -> list[str]:
    """Lists the names of the request's LoRAs that are switched on."""
    chosen = [lora.name for lora in options.loras if lora.strength != 0]
    return chosen + [tag.name for tag in extract_loras(options.prompt)[1] if tag.model_weight != 0]


def _suggested(path: Path, *, lora: bool) -> Preset | None:
    metadata = header_metadata(path)
    texts = (_name(path), *(str(metadata[title])[:LONGEST_TITLE] for title in TITLES if title in metadata))
    return next((preset for text in texts if (preset := preset_in(text, lora=lora))), None)


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
