"""Names a request's files in the picture's metadata so that they are found from any folder, without full paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    hires = options.hires
    if hires is not None and hires.method not in OWN_METHODS:
        hires = replace(hires, method=folders.lasting_name("upscalers", hires.method))
    return replace(
        options,
        prompt=_TAG.sub(lambda tag: tag[1] + folders.lasting_name("loras", tag[2]), options.prompt),
        vae=options.vae and folders.lasting_name("vae", options.vae),
        text_encoders=tuple(folders.lasting_name("text_encoders", name) for name in options.text_encoders),
        loras=tuple(replace(lora, name=folders.lasting_name("loras", lora.name)) for lora in options.loras),
        controls=tuple(replace(net, name=folders.lasting_name("controlnet", net.name)) for net in options.controls),
        hires=hires,
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
    for position, name in enumerate(options.text_encoders):
        yield text_encoder_key(position), "name", folders.outside("text_encoders", name)
    for position, lora in enumerate(options.loras):
        yield f"LoRA {position}", "name", folders.outside("loras", lora.name)
    for position, control in enumerate(options.controls):
        yield f"ControlNet {position}", "name", folders.outside("controlnet", control.name)
        yield f"ControlNet {position}", "image", control.image
    if options.hires is not None and options.hires.method not in OWN_METHODS:
        yield "Hires fix", "method", folders.outside("upscalers", options.hires.method)
    if options.init is not None:
        yield "Init image", "image", options.init.image
        yield "Init image", "mask", options.init.mask
