"""Names a request's files in the picture's metadata so that they are found from any folder, without full paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from modules.core.paths import ModelFolders
from modules.generation.metadata.named_files import Fingerprints
from modules.generation.metadata.packed import text_encoder_key
from modules.generation.metadata.write import Hashes
from modules.generation.options import GenerationOptions
from modules.images.methods import OWN_METHODS

# The start of a LoRA tag in a prompt, with a name or path (on Windows possibly with a drive's colon).
_TAG = re.compile(r"(<(?:lora|lyco):)((?:[A-Za-z]:(?=[\\/]))?[^:<>]*)", re.IGNORECASE)


def with_lasting_names(options: GenerationOptions, folders: ModelFolders) -> GenerationOptions:
    """Replaces model paths with the models' names in our folders, or else with their file names."""
    return renamed(options, folders.lasting_name)


def renamed(options: GenerationOptions, rename: Callable[[str, str], str]) -> GenerationOptions:
    """Replaces each name of a model file, except the checkpoint's, with `rename(kind, name)`."""
    hires, tiled = options.hires, options.tiled
    if hires is not None and hires.method not in OWN_METHODS:
        hires = replace(hires, method=rename("upscalers", hires.method))
    if tiled is not None and tiled.method not in OWN_METHODS:
        tiled = replace(tiled, method=rename("upscalers", tiled.method))
    return replace(
        options,
        prompt=_TAG.sub(lambda tag: tag[1] + rename("loras", tag[2]), options.prompt),
        vae=options.vae and rename("vae", options.vae),
        refiner=options.refiner and rename("checkpoints", options.refiner),
        text_encoders=tuple(rename("text_encoders", name) for name in options.text_encoders),
        loras=tuple(replace(lora, name=rename("loras", lora.name)) for lora in options.loras),
        controls=tuple(replace(net, name=rename("controlnet", net.name)) for net in options.controls),
        hires=hires,
        tiled=tiled,
    )


def hashes_of(options: GenerationOptions, folders: ModelFolders, fingerprints: Fingerprints) -> Hashes:
    """Hashes the request's pictures and the models outside our folders, by field and attribute of the metadata."""
    hashes: dict[str, dict[str, str]] = {}
    for field, attribute, path in _files(options, folders):
        found = None if path is None else fingerprints.of(path)
        if found is not None:
            hashes.setdefault(field, {})[attribute] = found
    return hashes


def _files(options: GenerationOptions, folders: ModelFolders) -> Iterator[tuple[str, str, Path | None]]:
    if options.vae:
        yield "VAE", "name", folders.outside("vae", options.vae)
    if options.refiner:
        yield "Refiner", "name", folders.outside("checkpoints", options.refiner)
    for position, name in enumerate(options.text_encoders):
        yield text_encoder_key(position), "name", folders.outside("text_encoders", name)
    for position, lora in enumerate(options.loras):
        yield f"LoRA {position}", "name", folders.outside("loras", lora.name)
    for position, control in enumerate(options.controls):
        yield f"ControlNet {position}", "name", folders.outside("controlnet", control.name)
        yield f"ControlNet {position}", "image", control.image
    for field, enlarged in (("Hires fix", options.hires), ("SD upscale", options.tiled)):
        if enlarged is not None and enlarged.method not in OWN_METHODS:
            yield field, "method", folders.outside("upscalers", enlarged.method)
    if options.init is not None:
        yield "Init image", "image", options.init.image
        yield "Init image", "mask", options.init.mask
