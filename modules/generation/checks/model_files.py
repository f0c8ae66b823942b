"""The model files that a request names, found before anything is loaded (no torch)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modules.catalog.models import default_checkpoint
from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.images.methods import OWN_METHODS
from modules.text.prompt import extract_loras


def model_files(options: GenerationOptions, folders: ModelFolders) -> Iterator[Path]:
    """Those of the options and of the prompt's tags. Raises ModelFileError for one that is not there, OptionsError for
    a tag that cannot be read."""
    yield checkpoint_path(folders, options.checkpoint)
    if options.vae:
        yield folders.find("vae", options.vae)
    if (text := text_encoder_path(folders, options)) is not None:
        yield text
    names = [lora.name for lora in options.loras] + [tag.name for tag in extract_loras(options.prompt)[1]]
    yield from (folders.find("loras", name) for name in names)
    yield from (folders.find("controlnet", control.name) for control in options.controls)
    if options.hires is not None and options.hires.method not in OWN_METHODS:
        yield upscaler_path(folders, options.hires.method)


def checkpoint_path(folders: ModelFolders, name: str | None) -> Path:
    """The named checkpoint; without a name the user's first own one, else the demo. Raises ModelFileError."""
    if name:
        return folders.find("checkpoints", name)
    default = default_checkpoint(folders)
    if default is None:
        raise ModelFileError(
            f"There is no checkpoint in {folders.folders('checkpoints')[0]}: "
            "put an SD1.x or SD2.x .safetensors file there, or name one with --checkpoint."
        )
    return folders.find("checkpoints", default)


def text_encoder_path(folders: ModelFolders, options: GenerationOptions) -> Path | None:
    """The text encoder's file that is asked for, or the checkpoint of that name, whose text encoder is meant.

    Raises ModelFileError, or OptionsError for more than one.
    """
    if not options.text_encoders:
        return None
    name, *others = options.text_encoders
    if others:
        raise OptionsError("This checkpoint has one text encoder: give --text-encoder once.")
    try:
        return folders.find("text_encoders", name)
    except ModelFileError as missing:
        try:
            return folders.find("checkpoints", name)
        except ModelFileError:
            raise missing from None


def upscaler_path(folders: ModelFolders, name: str) -> Path:
    """Raises ModelFileError."""
    try:
        return folders.find("upscalers", name)
    except ModelFileError as error:  # more likely a method misspelt
        raise ModelFileError(f"{error} HiresFix methods without a file: {', '.join(OWN_METHODS)}.") from error
