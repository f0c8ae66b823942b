"""A1111's settings: those of the API, and those that one request overrides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.a1111.names import found_name
from api.a1111.refusals import SETTINGS_UNSUPPORTED, check_all
from api.desk import Defaults, Desk
from api.fields import Fields
from modules.catalog.models import default_checkpoint
from modules.generation.options import GenerationOptions

CHECKPOINT, VAE, CLIP_SKIP = "sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers"


def with_settings(desk: Desk, settings: Fields) -> Defaults:
    """Returns the API's defaults with these settings. Raises OptionsError, or ModelFileError for a missing file.

    A1111 has hundreds of settings. Those that say nothing about a picture are ignored.
    """
    check_all(SETTINGS_UNSUPPORTED, settings.values)
    changed = desk.defaults
    if settings.has(CHECKPOINT):
        changed = replace(changed, checkpoint=found_name(desk.folders, "checkpoints", settings.text(CHECKPOINT)))
    if settings.has(VAE):
        changed = replace(changed, vae=found_name(desk.folders, "vae", settings.text(VAE)))
    if settings.has(CLIP_SKIP):
        changed = replace(changed, clip_skip=settings.whole(CLIP_SKIP, 1))
    GenerationOptions(prompt="", clip_skip=changed.clip_skip)  # checks it
    return changed


def settings(desk: Desk) -> dict[str, Any]:
    defaults = desk.defaults
    return {
        CHECKPOINT: defaults.checkpoint or default_checkpoint(desk.folders),
        VAE: defaults.vae or "Automatic",
        CLIP_SKIP: defaults.clip_skip,
        "samples_format": "png",
    }


def set_settings(desk: Desk, asked: Fields) -> None:
    """Switches the API's own defaults; the page keeps its form."""
    desk.defaults = with_settings(desk, asked)
