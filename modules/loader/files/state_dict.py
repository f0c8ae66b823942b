"""Reads model files of either format as flat dicts of tensors, with plain names and fp8 scales applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.files.open_file import Weights, holds_weights, naming
from modules.loader.files.pickle import PICKLE_SUFFIXES, read_pickle
from modules.loader.files.safetensors import SAFETENSORS_SUFFIXES, map_safetensors, read_header
from modules.loader.files.scaled import without_scales
from modules.loader.files.tensor_names import plain_names


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Reads all tensors of a model file by name, memory-mapped if the format allows it."""
    return open_weights(path).tensors


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Reads the tensors that are weights; drops counters, flags and the like."""
    return {name: tensor for name, tensor in read_state_dict(path).items() if holds_weights(tensor)}


def read_metadata(path: Path | str) -> dict[str, str]:
    """Returns the text header of a safetensors file; empty for pickles."""
    path = _existing_file(path)
    return read_header(path).metadata if path.suffix.lower() in SAFETENSORS_SUFFIXES else {}


def open_weights(path: Path | str) -> Weights:
    """Opens a model file of either format. Raises ModelFileError with the file's name and the problem."""
    path = _existing_file(path)
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        weights = map_safetensors(path)
    else:
        weights = Weights(read_pickle(path), {}, lambda: None)
    with naming(path):
        return replace(weights, tensors=without_scales(plain_names(weights.tensors)))


def _existing_file(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"There is no model file at {path}; check the name or put the file there.")
    if path.suffix.lower() not in SAFETENSORS_SUFFIXES + PICKLE_SUFFIXES:
        raise ModelFileError(
            f"{path.name} is not a supported model file; use "
            f"{', '.join(SAFETENSORS_SUFFIXES + PICKLE_SUFFIXES)} files or diffusers folders."
        )
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read ({error.strerror}); check its permissions.") from error
    _refuse_text(path, start)
    return path


def _refuse_text(path: Path, start: bytes) -> None:
    if not start:
        raise ModelFileError(f"{path.name} is empty; download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            f"{path.name} is a Git LFS pointer, not the model itself; fetch the file with git lfs pull."
        )
    if start[:64].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelFileError(f"{path.name} is a web page saved under a model's name; download the model file itself.")
    printable = sum(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start)
    if printable == len(start):
        raise ModelFileError(f"{path.name} is a text file, not a model; download the model file itself.")
