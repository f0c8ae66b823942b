"""Defines the form's field names and defaults, which all other files use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules.catalog.models import checkpoint_facts, default_checkpoint
from modules.controlnet.names import CONTROL_KINDS, PREPROCESSORS
from modules.core.paths import ModelFolders
from modules.generation.option_table import PLAIN_OPTIONS, REFINER_START, SHARE, STABLE_FAST_LEVELS
from modules.generation.options import (
    CONTROL_MODES,
    MASK_CONTENTS,
    ControlChoice,
    HiresOptions,
    InitImage,
    TiledOptions,
    default_of,
)
from modules.images.methods import IMAGE_MODES
from modules.sampling.names import SAMPLER_LABELS, SCHEDULER_LABELS

LORA_SLOTS = 4
CONTROL_SLOTS = 2
TEXT_FIELDS = ("text_encoder", "text_encoder_2")  # SDXL has two
TEXT_MODE, IMAGE_MODE = "text", "image"
SCHEDULER = "karras"  # the default of the form
AUTOMATIC = ""  # means "as in the file" or "as in the first pass" in a drop-down list
OPTIONS = {option.name: option for option in PLAIN_OPTIONS if option.page != "own"}  # each is also a field name

# Choices of drop-down lists without files. A drop-down list rejects a remembered value that is not a choice.
CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": tuple(SAMPLER_LABELS),
    "scheduler": tuple(SCHEDULER_LABELS),
    "hires_sampler": (AUTOMATIC, *SAMPLER_LABELS),
    "hires_scheduler": (AUTOMATIC, *SCHEDULER_LABELS),
    "level": STABLE_FAST_LEVELS[1:],
    **{
        name: (AUTOMATIC, *option.choices) if option.empty else option.choices
        for name, option in OPTIONS.items()
        if option.choices
    },
    "resize": tuple(IMAGE_MODES),
    "mask_content": MASK_CONTENTS,
    **{f"control_{slot}_mode": CONTROL_MODES for slot in range(1, CONTROL_SLOTS + 1)},
    **{f"control_{slot}_preprocessor": PREPROCESSORS for slot in range(1, CONTROL_SLOTS + 1)},
    **{f"control_{slot}_kind": (AUTOMATIC, *CONTROL_KINDS) for slot in range(1, CONTROL_SLOTS + 1)},
}

# Ranges of the sliders. A slider rejects a remembered value outside its range.
RANGES: dict[str, tuple[float, float]] = {
    **{name: SHARE for name, option in OPTIONS.items() if option.limits == SHARE},
    "refiner_start": SHARE,
    "denoise": SHARE,
    "hires_denoise": SHARE,
    "hires_scale": (1.0, 4.0),
    "tiled_scale": (1.0, 8.0),
    **{f"lora_{slot}_strength": (-2.0, 2.0) for slot in range(1, LORA_SLOTS + 1)},
    **{f"control_{slot}_{end}": SHARE for slot in range(1, CONTROL_SLOTS + 1) for end in ("start", "end")},
}

CONTROL_IMAGES = {f"control_{slot}": f"control_{slot}_image" for slot in range(1, CONTROL_SLOTS + 1)}
OWN_IMAGES = ("editor", "mask_file")  # pictures that are not remembered
IMAGE_FIELDS = (*OWN_IMAGES, *CONTROL_IMAGES.values())

# Messages, each beside the part of the page that it is about. A new request clears them all.
MESSAGES = (
    *("message", "styles_message", "init_message", "control_message", "restore_message", "presets_message"),
    *("compare_message", "grid_message", "extras_message", "picture_message", "history_message", "repaint_message"),
)


def defaults(folders: ModelFolders) -> dict[str, Any]:
    """Returns all fields of a new form with their defaults, in the order in which handlers receive them."""
    checkpoint = default_checkpoint(folders) or ""
    size = checkpoint_facts(folders, checkpoint).native_size
    return {
        "prompt": "",
        "negative_prompt": "",
        "styles": [],
        "stable_fast": False,
        "level": "full",
        "mode": TEXT_MODE,
        "width": size,
        "height": size,
        **image_defaults(),
        **plain_defaults(checkpoint),
        "seed": "",
        **dict.fromkeys(TEXT_FIELDS, AUTOMATIC),
        "refiner": AUTOMATIC,
        "refiner_start": REFINER_START,
        **{key: value for slot in range(1, LORA_SLOTS + 1) for key, value in lora_defaults(slot).items()},
        **hires_defaults(),
        **{key: value for slot in range(1, CONTROL_SLOTS + 1) for key, value in control_defaults(slot).items()},
    }


def plain_defaults(checkpoint: str) -> dict[str, Any]:
    values = {name: default_of(name) for name in OPTIONS}
    left_out = {name: AUTOMATIC for name, value in values.items() if value is None}
    return {**values, **left_out, "checkpoint": checkpoint, "scheduler": SCHEDULER}


# Fields of image to image that have the names and defaults of InitImage.
INIT_PLAIN = (
    *("denoise", "resize", "mask_blur", "mask_content", "mask_invert", "only_masked", "mask_padding"),
    *("mask_soft", "each_part", "outpaint_seam"),
)
OUTPAINT = ("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom")  # in the order of InitImage.outpaint


def image_defaults() -> dict[str, Any]:
    init = InitImage.__dataclass_fields__
    return {
        **dict.fromkeys(OWN_IMAGES),
        "keep_size": True,
        **dict.fromkeys(OUTPAINT, 0),
        **{name: init[name].default for name in INIT_PLAIN},
        **tiled_defaults(),
    }


def tiled_defaults() -> dict[str, Any]:
    tiled = TiledOptions()
    return {
        "tiled": False,
        "tiled_scale": tiled.scale,
        "tiled_method": tiled.method,
        "tiled_overlap": tiled.overlap,
        "tile_width": None,
        "tile_height": None,
    }


def editor_value(image: Path) -> dict[str, Any]:
    """Returns a value for the mask editor, without paint: Gradio 6 loads given layers again and again, unseen."""
    return {"background": str(image), "layers": [], "composite": None}


def lora_defaults(slot: int) -> dict[str, Any]:
    return {f"lora_{slot}": AUTOMATIC, f"lora_{slot}_strength": 1.0, f"lora_{slot}_text": None}


def hires_defaults() -> dict[str, Any]:
    hires = HiresOptions()
    return {
        "hires": False,
        "hires_scale": hires.scale,
        "hires_method": hires.method,
        "hires_steps": hires.steps,
        "hires_denoise": hires.denoise,
        "hires_cfg": hires.cfg,
        "hires_sampler": AUTOMATIC,
        "hires_scheduler": AUTOMATIC,
        "hires_width": hires.width,
        "hires_height": hires.height,
        "hires_keep": hires.keep_first_pass,
    }


def control_defaults(slot: int) -> dict[str, Any]:
    control = ControlChoice.__dataclass_fields__
    plain = {name: control[name].default for name in ("strength", "start", "end", "mode", "preprocessor")}
    return {
        f"control_{slot}": AUTOMATIC,
        f"control_{slot}_image": None,
        f"control_{slot}_kind": AUTOMATIC,
        **{f"control_{slot}_{name}": value for name, value in plain.items()},
    }
