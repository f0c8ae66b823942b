"""Converts GenerationOptions to a picture's `parameters` text and back, complete enough to make the picture again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError, quoted
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.metadata.hires import tile_fields
from modules.generation.metadata.inpaint import mask_fields
from modules.generation.metadata.packed import pack, text_encoder_key
from modules.generation.metadata.problems import Problem, as_error
from modules.generation.metadata.recall import (
    Recalled,
    check_models,
    read_picture,
    read_texts,
)
from modules.generation.option_table import PLAIN_OPTIONS
from modules.generation.options import GenerationOptions, ResolvedOptions, default_of
from modules.images.metadata import PNG_KEY, parameters_of, parse_parameters, write_parameters
from modules.images.open import opened
from modules.sampling.names import label_of, sampler_and_scheduler

log = logging.getLogger(__name__)

Hashes = Mapping[str, Mapping[str, str]]  # by field and attribute: {"Init image": {"image": ...}}

DECIDING_FACTS = ("Model hash", "Precision", "Torch")  # not part of the request, but they affect the picture


def to_parameters(options: ResolvedOptions, index: int, facts: Mapping[str, str], hashes: Hashes | None = None) -> str:
    """Writes the text for picture `index` of a request; `facts` adds the session's model hash and versions.

    `hashes` identify files that are named without a folder. The seed is that of this picture. For a picture of a batch,
    its position is also written, since only the same batch reproduces it bit for bit.
    """
    batch, hashes = options.batch, hashes or {}
    labels = label_of(*sampler_and_scheduler(options.sampler, options.scheduler))
    info: dict[str, str] = {
        "Steps": str(options.steps),
        "Sampler": labels.sampler,
        "Schedule type": labels.schedule,
        "CFG scale": exact(options.cfg),
        "Seed": str(options.seed + index),
        "Size": f"{options.width}x{options.height}",
    }
    info |= dict(facts)
    info |= _plain_fields(options, written=info)
    info |= {text_encoder_key(position): name for position, name in enumerate(options.text_encoders)}
    for name in ("VAE", "Refiner", *map(text_encoder_key, range(len(options.text_encoders)))):
        if name in hashes:
            info[f"{name} hash"] = hashes[name]["name"]
    if options.refiner:
        info["Refiner switch by sampling steps"] = "True"  # AUTOMATIC1111 would count timesteps
    if batch > 1:
        info |= {"Batch size": str(batch), "Batch pos": str(index % batch)}
    info |= _extras(options, hashes)
    return write_parameters(info, options.prompt, options.negative_prompt)


def _plain_fields(options: GenerationOptions, written: Collection[str]) -> dict[str, str]:
    """Returns the plain options that are not in `written` and differ from their defaults, by their keys."""
    info: dict[str, str] = {}
    for option in PLAIN_OPTIONS:
        value = getattr(options, option.name)
        if option.key and option.key not in written and (option.always_written or value != default_of(option.name)):
            info[option.key] = exact(value) if option.kind == "number" else str(value)
    return info


def _extras(options: GenerationOptions, hashes: Hashes) -> dict[str, str]:
    """Writes LoRAs, ControlNets, HiresFix, tiles and the start picture."""
    choices = {f"LoRA {position}": lora for position, lora in enumerate(options.loras)}
    choices |= {f"ControlNet {position}": control for position, control in enumerate(options.controls)}
    info = {field: pack(choice, hashes.get(field, {})) for field, choice in choices.items()}
    if options.hires:
        info["Hires fix"] = pack(options.hires, hashes.get("Hires fix", {}))
        info |= {"Hires upscale": f"{options.hires.scale:g}", "Hires upscaler": options.hires.method}
    if options.tiled:
        info["SD upscale"] = pack(options.tiled, hashes.get("SD upscale", {}))
        info |= tile_fields(options.tiled)
    if options.init:
        info["Init image"] = pack(options.init, hashes.get("Init image", {}))
        info |= mask_fields(options.init)
    if options.denoise is not None:
        info["Denoising strength"] = f"{options.denoise:g}"
    return info


def exact(value: float) -> str:
    """Writes the shortest text that converts back to the same number; like A1111, without a point for whole numbers."""
    return repr(float(value)).removesuffix(".0")


def changed_facts(before: Path, after: Path) -> list[str]:
    """Lists the facts that affect a picture's bits and differ between two files, if both contain them."""
    old, new = (_own_fields(path) for path in (before, after))
    return [key for key in DECIDING_FACTS if key in old and key in new and old[key] != new[key]]


def _own_fields(path: Path) -> dict[str, str]:
    with opened(path) as image:
        return parse_parameters(parameters_of(image) or "")[2]


def from_picture(path: Path, given: Mapping[str, Any] | None = None) -> GenerationOptions:
    """Reads the request from a picture's metadata, whichever program wrote it. `given` replaces settings.

    Logs unsupported settings once. Raises OptionsError for unusable settings and missing pictures, with the option for
    each, and ModelFileError for a missing model.
    """
    given = given or {}
    recalled = read_picture(path, OutputFolder(given.get("output_dir")).folder, given=given)
    problems = list(recalled.problems)
    others = check_models(recalled.models, ModelFolders(), problems)
    options = _complete(recalled, path.name, problems)
    if others:
        log.warning("%s was made with other files of these names: %s.", path.name, ", ".join(others))
    return options


def from_parameters(
    text: str, given: Mapping[str, Any] | None = None, places: Sequence[Path] = ()
) -> GenerationOptions:
    """Works like `from_picture` for a `parameters` text alone; searches these folders for the pictures named in it."""
    recalled = read_texts({PNG_KEY: text}, given=given, places=places)
    return _complete(recalled, "the picture", recalled.problems)


def _complete(recalled: Recalled, name: str, problems: Sequence[Problem]) -> GenerationOptions:
    if problems:
        raise as_error(problems, recalled.lacks)
    if recalled.lacks:
        raise OptionsError(f"To make {quoted(name)} again, these are missing: {', '.join(recalled.lacks)}.")
    if recalled.left_out:
        log.warning("Left out of %s, because it is not supported: %s.", name, recalled.left_out)
    return recalled.options
