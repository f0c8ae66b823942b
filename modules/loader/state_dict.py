"""Reads model files into flat dicts: safetensors memory-mapped, pickles only when they hold nothing but weights."""

from __future__ import annotations

import json
import math
import mmap
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.errors import ModelFileError

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_HEADER_LIMIT = 100_000_000
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in a safetensors file; `start` and `end` count from the beginning of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A safetensors file without its data."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Weights:
    """An open model file. `drop_pages` frees the pages read so far; call it only before any tensor is written."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    drop_pages: Callable[[], None]


class _Inert:
    """Takes the place of training leftovers in a pickle; keeps what it is given and does nothing."""

    def __init__(self, *_args: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# What torch's readers raise on damaged or foreign bytes, as found by changing good files at random.
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
    struct.error,
)

# Training frameworks leave these beside the weights; replaced by `_Inert` they cannot run anything.
_HARMLESS_GLOBALS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "torch.nn.modules.container.ParameterDict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """All tensors of a model file by name, memory-mapped where the format allows it."""
    return open_weights(path).tensors


def read_metadata(path: Path | str) -> dict[str, str]:
    """The text header of a safetensors file; empty for pickles."""
    path = _existing_file(path)
    return read_header(path).metadata if path.suffix.lower() in SAFETENSORS_SUFFIXES else {}


def read_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Names and shapes only; reads no more than the header of a safetensors file."""
    path = _existing_file(path)
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        return {name: entry.shape for name, entry in read_header(path).entries.items()}
    return {name: tuple(tensor.shape) for name, tensor in _read_pickle(path).items()}


def open_weights(path: Path | str) -> Weights:
    """Opens a model file of either format."""
    path = _existing_file(path)
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        return _map_safetensors(path)
    return Weights(_read_pickle(path), {}, lambda: None)


def _existing_file(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"There is no model file at {path}; check the name or put the file there.")
    if path.suffix.lower() not in SAFETENSORS_SUFFIXES + PICKLE_SUFFIXES:
        raise ModelFileError(
            f"{path.name} is not a model file we read; supported are "
            f"{', '.join(SAFETENSORS_SUFFIXES + PICKLE_SUFFIXES)} files and diffusers folders."
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


def read_header(path: Path) -> Header:
    """Parses and checks the header of a safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        # A good header's length may begin with the same byte; a pickle read as a length is far over the limit.
        if length > _HEADER_LIMIT and prefix.startswith((b"PK", b"\x80")):
            raise ModelFileError(f"{path.name} is a PyTorch pickle, not safetensors; rename it to end in .ckpt.")
        if not 2 <= length <= _HEADER_LIMIT:
            raise ModelFileError(f"{path.name} is not a safetensors file (its header is damaged); download it again.")
        if 8 + length > size:
            raise ModelFileError(f"{path.name} is cut off inside its header; download it again.")
        text = file.read(length)
    try:
        table = json.loads(text)
        metadata = {str(key): str(value) for key, value in (table.pop("__metadata__", None) or {}).items()}
        entries = {name: _parse_entry(name, raw, 8 + length) for name, raw in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"The header of {path.name} is damaged ({error}); download it again.") from error
    end = max((entry.end for entry in entries.values()), default=8 + length)
    if end > size:
        raise ModelFileError(
            f"{path.name} is cut off: {size / 2**20:.1f} of {end / 2**20:.1f} MiB are there; download it again."
        )
    return Header(entries, metadata)


def _parse_entry(name: str, raw: Mapping[str, object], data_start: int) -> TensorEntry:
    dtype = _DTYPES.get(str(raw["dtype"]))
    if dtype is None:
        raise ValueError(f"{name} has the unknown type {raw['dtype']}")
    shape = tuple(int(n) for n in raw["shape"])  # type: ignore[attr-defined]
    start, end = (int(n) for n in raw["data_offsets"])  # type: ignore[attr-defined]
    if start < 0 or min(shape, default=1) < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {end - start} bytes for shape {list(shape)}")
    return TensorEntry(dtype, shape, data_start + start, data_start + end)


def _map_safetensors(path: Path) -> Weights:
    """Maps the file copy-on-write: tensors may be written, the file never changes."""
    header = read_header(path)
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def drop_pages() -> None:
        advice = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows
        if advice is not None:
            mapping.madvise(advice)

    tensors = {name: _view(mapping, entry) for name, entry in header.entries.items()}
    return Weights(tensors, header.metadata, drop_pages)


def _view(mapping: mmap.mmap, entry: TensorEntry) -> Tensor:
    if entry.start == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if entry.start % entry.dtype.itemsize:  # old writers did not pad the header
        data = bytearray(mapping[entry.start : entry.end])
        return torch.frombuffer(data, dtype=entry.dtype).view(entry.shape)
    count = math.prod(entry.shape)
    return torch.frombuffer(mapping, dtype=entry.dtype, count=count, offset=entry.start).view(entry.shape)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    tensors = _flatten(_load_weights_only(path))
    if not tensors:
        raise ModelFileError(f"{path.name} holds no weights; it is not a model file.")
    return tensors


def _load_weights_only(path: Path) -> object:
    # Files older than torch 1.6 are not zip archives and cannot be mapped.
    is_archive = _starts_with(path, b"PK")
    inert: list[Any] = [(_Inert, name) for name in _HARMLESS_GLOBALS]
    try:
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


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _flatten(value: object, prefix: str = "") -> dict[str, Tensor]:
    """Nested dicts become dotted names; a top-level "state_dict" is unwrapped; what is not a tensor is left out."""
    if isinstance(value, _Inert):
        state = value.state
        value = state.get("_parameters", {}) if isinstance(state, Mapping) else {}
    if isinstance(value, Tensor):
        return {prefix.rstrip("."): value.detach()}
    if not isinstance(value, Mapping):
        return {}
    if not prefix and isinstance(value.get("state_dict"), Mapping):
        return _flatten(value["state_dict"])
    flat: dict[str, Tensor] = {}
    for key, item in value.items():
        flat.update(_flatten(item, f"{prefix}{key}."))
    return flat
