"""Reads safetensors files memory-mapped; a tensor with a dtype that torch lacks does not affect the others."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.core.typed import Unreadable, parse_json_object, whole
from modules.loader.files.open_file import Weights

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
_HEADER_LIMIT = 100_000_000
_MOST_DIMENSIONS = 16
_MOST_BYTES = 2**62  # size limit of a tensor, counting a dimension of 0 as 1, because torch multiplies in 64 bits
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorEntry:
    """The position of one tensor in a safetensors file; `start` and `end` are offsets from the beginning of the file.

    `dtype` is None if unsupported (F4, F6, F8_E8M0, or a future type).
    """

    dtype: torch.dtype | None
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The contents of a safetensors file except the tensor data."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Parses and checks the header. Raises ModelFileError with the reason."""
    size = path.stat().st_size
    text = _header_text(path, size)
    start = 8 + len(text)
    try:
        table = parse_json_object(text)
        metadata = table.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict):
            raise Unreadable(f"its __metadata__ is {quoted(metadata)}")
        entries = {name: _parse_entry(name, raw, start) for name, raw in table.items()}
    except Unreadable as error:
        raise ModelFileError(f"The header of {path.name} is damaged ({error}); download it again.") from error
    end = max((entry.end for entry in entries.values()), default=start)
    if end > size:
        raise ModelFileError(
            f"{path.name} is cut off: it has {size / 2**20:.1f} of {end / 2**20:.1f} MiB; download it again."
        )
    return Header(entries, {str(key): str(value) for key, value in metadata.items()})


def _header_text(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        # A valid header's length may begin with the same byte, but a pickle read as a length is far over the limit.
        if length > _HEADER_LIMIT and prefix.startswith((b"PK", b"\x80")):
            raise ModelFileError(f"{path.name} is a PyTorch pickle, not safetensors; rename it to end in .ckpt.")
        if not 2 <= length <= _HEADER_LIMIT:
            raise ModelFileError(f"{path.name} is not a safetensors file (its header is damaged); download it again.")
        if 8 + length > size:
            raise ModelFileError(f"{path.name} is cut off inside its header; download it again.")
        return file.read(length)


def _parse_entry(name: str, raw: Any, data_start: int) -> TensorEntry:
    label = quoted(name)
    if not isinstance(raw, dict) or not {"dtype", "shape", "data_offsets"} <= raw.keys():
        raise Unreadable(f"{label} is {quoted(raw)}")
    if not isinstance(raw["dtype"], str):
        raise Unreadable(f"{label} has the type {quoted(raw['dtype'])}")
    shape, offsets = _numbers(raw["shape"], label), _numbers(raw["data_offsets"], label)
    if len(shape) > _MOST_DIMENSIONS or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Unreadable(f"{label} has an impossible shape or place")
    dtype = _DTYPES.get(raw["dtype"])
    length, itemsize = offsets[1] - offsets[0], dtype.itemsize if dtype else 1
    if math.prod(max(1, n) for n in shape) * itemsize > _MOST_BYTES:
        raise Unreadable(f"{label} has the impossible shape {quoted(list(shape))}")
    if dtype is not None and length != math.prod(shape) * itemsize:
        raise Unreadable(f"{label} has {length} bytes for shape {quoted(list(shape))}")
    return TensorEntry(dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _numbers(value: Any, label: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise Unreadable(f"{label}: {quoted(value)} is not a list")
    numbers = tuple(whole(item, label) for item in value)
    if min(numbers, default=0) < 0:
        raise Unreadable(f"{label}: {min(numbers)} is below 0")
    return numbers


def map_safetensors(path: Path) -> Weights:
    """Maps the file copy-on-write: tensors are writable, but the file never changes."""
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
    if entry.dtype is None:
        return torch.empty(entry.shape, dtype=torch.uint8, device="meta")  # no values; rejected where values are needed
    if entry.start == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if entry.start % entry.dtype.itemsize:  # old writers did not pad the header
        data = bytearray(mapping[entry.start : entry.end])
        return torch.frombuffer(data, dtype=entry.dtype).view(entry.shape)
    count = math.prod(entry.shape)
    return torch.frombuffer(mapping, dtype=entry.dtype, count=count, offset=entry.start).view(entry.shape)
