"""Reads the names, shapes and metadata in a model file's header; never its weights, and no code (no torch here)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from modules.core.typed import Unreadable, parse_json_object

HEADER_LIMIT = 16_000_000  # bytes; no model needs more, and reading a longer header would take seconds each time
PICKLE_LIMIT = 4_000_000  # bytes; the names of a whole SDXL checkpoint take about half a megabyte
JSON_LIMIT = 2_000_000  # bytes
# What only SDXL's UNet has: the layer that reads the picture's sizes, in LDM and in diffusers names.
SDXL_MARKS = ("label_emb.0.0.weight", "add_embedding.linear_1.weight", "label_emb00weight")
_MOST_DIMENSIONS = 8
_LARGEST_DIMENSION = 2**40


def read_header(path: Path) -> dict[str, Any]:
    """Returns the names and metadata of a safetensors file, or the config of a diffusers folder's UNet.

    Of a pickle file (.ckpt, .pt) it returns only those names that tell SDXL. It returns nothing for a damaged file,
    which is reported when it is loaded.
    """
    try:
        if path.is_dir():
            return read_json_object(path / "unet" / "config.json")
        if not path.is_file():
            return {}
        if path.suffix != ".safetensors":
            return dict.fromkeys(_marks_in_pickle(path))
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return parse_json_object(file.read(length)) if length <= HEADER_LIMIT else {}
    except (OSError, struct.error, Unreadable):
        return {}


def read_json_object(path: Path) -> dict[str, Any]:
    """Returns the object in a small JSON file; empty if there is no such file, or another kind of file."""
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            data = file.read(JSON_LIMIT + 1)
        return parse_json_object(data) if len(data) <= JSON_LIMIT else {}
    except (OSError, Unreadable):
        return {}


def header_metadata(path: Path) -> dict[str, Any]:
    """Returns a safetensors file's metadata; empty for other formats, and for damaged files (reported on loading)."""
    return metadata_in(read_header(path))


def metadata_in(header: Mapping[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def shapes_in(header: Mapping[str, Any], pattern: re.Pattern[str]) -> Iterator[tuple[int, ...]]:
    """Yields the shapes of tensors whose name holds the pattern; leaves out entries that are none."""
    for name, entry in header.items():
        if pattern.search(name) and isinstance(entry, dict) and _is_shape(shape := entry.get("shape")):
            yield tuple(shape)


def _is_shape(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) <= _MOST_DIMENSIONS
        and all(type(size) is int and 0 <= size <= _LARGEST_DIMENSION for size in value)
    )


def our_facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the header says in our own format; empty if it says nothing or is damaged."""
    text = metadata.get("lightdiffusion") or metadata.get("sd_tiny")
    try:
        return parse_json_object(text) if isinstance(text, str) else {}
    except Unreadable:
        return {}


def _marks_in_pickle(path: Path) -> list[str]:
    """Looks for SDXL's names in the bytes of a pickle, which come before the weights; executes nothing."""
    with path.open("rb") as file:
        beginning = file.read(PICKLE_LIMIT)
    return [mark for mark in SDXL_MARKS if mark.encode() in beginning]
