"""Reads PyTorch files without running any code in them; returns only the tensors, by name."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_DEEPEST = 24  # nesting levels; a network saved as a tree of dicts has ten
_MOST_ENTRIES = 200_000  # lists that contain each other can expand far beyond the file's size


class _Inert:
    """Replaces training leftovers in a pickle: stores its arguments and does nothing else."""

    def __init__(self, *_args: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# Errors that torch's readers raise for damaged or foreign bytes, found by fuzzing valid files.
_DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)

# Training frameworks store these along with the weights. `_Inert` replaces them, so that they cannot run anything.
_HARMLESS_GLOBALS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "torch.nn.modules.container.ParameterDict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Reads all tensors, using dotted names for nested ones.

    Raises ModelFileError if the file is damaged, contains code or has no tensors.
    """
    try:
        tensors = _flatten(_load_weights_only(path))
    except ValueError as error:
        raise ModelFileError(f"{path.name} cannot be read ({error}); use another version of this file.") from error
    if not tensors:
        raise ModelFileError(f"{path.name} holds no weights; it is not a model file.")
    size = path.stat().st_size
    for name, tensor in tensors.items():
        # With strides of 0, a single number could expand to any amount of memory.
        if tensor.layout == torch.strided and not tensor.is_meta and tensor.nbytes > size:
            raise ModelFileError(f"{path.name} is not a model file: {quoted(name)} is larger than the file itself.")
    return tensors


def _load_weights_only(path: Path) -> object:
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"  # files from before torch 1.6 are not zip archives and cannot be mapped
    inert: list[Any] = [(_Inert, name) for name in _HARMLESS_GLOBALS]
    try:
        if is_archive:
            _refuse_compressed(path)
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except _DAMAGE as error:
        code = re.search(r"GLOBAL ([\w.]+)|[Gg]lobal ([\w.]+) (?:was|is)", str(error))
        if code:
            raise ModelFileError(
                f"{path.name} contains Python code ({code[1] or code[2]}) and was not loaded; "
                "use a .safetensors version of this model."
            ) from error
        raise ModelFileError(f"{path.name} is damaged or not a PyTorch file; download it again.") from error


def _refuse_compressed(path: Path) -> None:
    """Raises ModelFileError for a compressed archive, which would yield nonsense numbers when memory-mapped."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ModelFileError(
                f"{path.name} is a compressed archive, which PyTorch does not write; use another copy, or unpack it "
                "and pack it again without compression."
            )


def _flatten(value: object) -> dict[str, Tensor]:
    """Flattens dicts, lists and tuples to dotted names; a one-item list becomes its item. Skips everything else.

    Raises ValueError if the nesting is endless.
    """
    flat: dict[str, Tensor] = {}
    level: list[tuple[str, object]] = [("", value)]
    seen = 0
    for _ in range(_DEEPEST):
        deeper: list[tuple[str, object]] = []
        for name, item in level:
            if isinstance(item, Tensor):
                flat[name] = item.detach()
                continue
            inside = list(_items(item))
            seen += len(inside)
            if seen > _MOST_ENTRIES:
                raise ValueError("it holds too many entries")
            deeper += [(f"{name}.{key}".strip("."), inner) for key, inner in inside]
        if not deeper:
            return flat
        level = deeper
    raise ValueError("it is nested too deeply")


def _items(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, _Inert):
        state = value.state
        value = state.get("_parameters", {}) if isinstance(state, Mapping) else {}
    if isinstance(value, Mapping):
        return value.items()
    if not isinstance(value, (list, tuple)):
        return ()
    return [("", value[0])] if len(value) == 1 else enumerate(value)
