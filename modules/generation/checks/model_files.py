"""Finds the model files of a request before anything is loaded (no torch)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modules.catalog.models import default_checkpoint
from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.images.methods import OWN_METHODS
from modules.text.prompt import extract_loras

MOST_TEXT_ENCODERS = 2  # those of SDXL


def model_files(options: GenerationOptions, folders: ModelFolders) -> Iterator[Path]:
    """Yields the model files given in the options and in the prompt's tags.

    Raises ModelFileError for a missing file, OptionsError for an unreadable tag.
    """
    yield checkpoint_path(folders, options.checkpoint)
    if options.vae:
        yield folders.find("vae", options.vae)
    if options.refiner:
        yield folders.find("checkpoints", options.refiner)
    yield from text_encoder_paths(folders, options)
    names = [lora.name for lora in options.loras] + [tag.name for tag in extract_loras(options.prompt)[1]]
    yield from (folders.find("loras", name) for name in names)
    yield from (folders.find("controlnet", control.name) for control in options.controls)
    for enlarged in (options.hires, options.tiled):
        if enlarged is not None and enlarged.method not in OWN_METHODS:
            yield upscaler_path(folders, enlarged.method)


def checkpoint_path(folders: ModelFolders, name: str | None) -> Path:
    """Returns the named checkpoint, or else the user's first one, or else the demo. Raises ModelFileError."""
    if name:
        return folders.find("checkpoints", name)
    default = default_checkpoint(folders)
    if default is None:
        raise ModelFileError(
            f"There is no checkpoint in {folders.folders('checkpoints')[0]}: "
            "put an SD1.x, SD2.x or SDXL .safetensors file there, or name one with --checkpoint."
        )
    return folders.find("checkpoints", default)


def text_encoder_paths(folders: ModelFolders, options: GenerationOptions) -> list[Path]:
    """Returns the requested text encoder files, or checkpoints with these names, whose text encoders are used.

    Raises ModelFileError for a missing file, OptionsError for more than two.
    """
    if len(options.text_encoders) > MOST_TEXT_ENCODERS:
        raise OptionsError("No checkpoint has more than two text encoders: give --text-encoder at most twice.")
    return [_text_encoder_path(folders, name) for name in options.text_encoders]


def _text_encoder_path(folders: ModelFolders, name: str) -> Path:
    try:
        return folders.find("text_encoders", name)
    except ModelFileError as missing:
        try:
            return folders.find("checkpoints", name)
        except ModelFileError:
            raise missing from None


def upscaler_path(folders: ModelFolders, name: str) -> Path:
    """Returns the upscaler's file. Raises ModelFileError."""
    try:
        return folders.find("upscalers", name)
    except ModelFileError as error:  # probably a misspelt method
        raise ModelFileError(f"{error} Methods without a file: {', '.join(OWN_METHODS)}.") from error
