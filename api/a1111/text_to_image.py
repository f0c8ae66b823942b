"""Reads txt2img: A1111's fields become GenerationOptions."""

from __future__ import annotations

from typing import Any

from api.a1111.controlnet import read_controls
from api.a1111.hires import read_hires
from api.a1111.names import found_name
from api.a1111.options import with_settings
from api.a1111.refusals import UNSUPPORTED, check_all
from api.desk import Desk
from api.fields import Fields
from modules.gallery.output import OutputFolder
from modules.generation.option_table import REFINER_START
from modules.generation.options import GenerationOptions

DEFAULT_STEPS, DEFAULT_SIZE, DEFAULT_SAMPLER = 50, 512, "Euler"  # A1111's
PROMPTS_AS = "a1111"  # how A1111 reads emphasis, AND and [a:b:0.5]


def read_text_to_image(desk: Desk, asked: Fields, tray: OutputFolder) -> GenerationOptions:
    """Returns the request. Raises OptionsError or ModelFileError."""
    plain = read_common(desk, asked)
    size = plain["width"], plain["height"]
    hires = read_hires(asked, size) if asked.flag("enable_hr") else None
    return GenerationOptions(**plain, hires=hires, controls=read_controls(desk, asked, tray, size))


def read_common(desk: Desk, asked: Fields) -> dict[str, Any]:
    """Returns the options that txt2img and img2img share."""
    check_all(UNSUPPORTED, asked.values)
    defaults = with_settings(desk, asked.object("override_settings"))
    refiner = found_name(desk.folders, "checkpoints", asked.text("refiner_checkpoint"))
    return {
        "prompt": asked.text("prompt"),
        "negative_prompt": asked.text("negative_prompt"),
        "styles": asked.texts("styles"),
        "width": asked.whole("width", DEFAULT_SIZE),
        "height": asked.whole("height", DEFAULT_SIZE),
        "number": asked.whole("n_iter", 1),
        "batch": asked.whole("batch_size", 1),
        "seed": asked.whole("seed", -1),
        "steps": asked.whole("steps", DEFAULT_STEPS),
        "cfg": asked.number("cfg_scale", 7.0),
        "sampler": asked.text("sampler_name") or asked.text("sampler_index") or DEFAULT_SAMPLER,
        "scheduler": asked.text("scheduler") or "automatic",
        "emphasis": PROMPTS_AS,
        "checkpoint": defaults.checkpoint,
        "vae": defaults.vae,
        "clip_skip": defaults.clip_skip,
        "refiner": refiner,
        "refiner_start": asked.number("refiner_switch_at", REFINER_START) if refiner else None,
    }
