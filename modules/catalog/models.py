"""Describes checkpoints for front ends without loading them (no torch here)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from modules.core.errors import ModelFileError, printable
from modules.core.paths import ModelFolders
from modules.core.sizes import MAX_SIZE, MIN_SIZE, SIZE_STEP
from modules.core.typed import Unreadable, parse_json_object

DEMO = "demo.safetensors"
DEMO_HINT = (
    "The demo model draws one circle, square, triangle or star in a colour on a plain background, and simple "
    'landscapes: "a red circle on a blue background", "a sunset over the ocean".'
)
HEADER_LIMIT = 16_000_000  # bytes; no model needs more, and reading a longer header would take seconds each time
LONGEST_DESCRIPTION = 500  # characters; it is shown in the prompt field
SDXL_SIZE = 1024
# Sizes on which SDXL was trained (Podell et al. 2023, appendix I): the usual ones of about one megapixel.
SDXL_SHAPES = [
    ("Square", 1024, 1024),
    ("Portrait", 896, 1152),
    ("Landscape", 1152, 896),
    ("Portrait", 832, 1216),
    ("Landscape", 1216, 832),
    ("Tall", 768, 1344),
    ("Wide", 1344, 768),
    ("Tall", 640, 1536),
    ("Wide", 1536, 640),
]
# What only SDXL's UNet has: the layer that reads the picture's sizes, in LDM and in diffusers names.
_SDXL_MARKS = ("label_emb.0.0.weight", "add_embedding.linear_1.weight", "label_emb00weight")


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """Facts about a checkpoint. `native_size` is the side length in pixels of its training pictures, if known."""

    native_size: int
    description: str


def default_checkpoint(folders: ModelFolders) -> str | None:
    """Returns the user's first checkpoint, or else the demo, or else None."""
    names = folders.list("checkpoints")
    own = [name for name in names if name != DEMO]
    return (own or names or [None])[0]


def has_own_checkpoint(folders: ModelFolders) -> bool:
    return any(name != DEMO for name in folders.list("checkpoints"))


def checkpoint_facts(folders: ModelFolders, name: str | None) -> CheckpointFacts:
    """Reads the facts from a file's header, or a folder's config; without them, the checkpoint counts as SD1.x."""
    try:
        path = folders.find("checkpoints", name) if name else None
    except ModelFileError:
        path = None
    header = _header(path) if path is not None else {}
    metadata = _metadata(header)
    facts = _ours(metadata)
    hint = DEMO_HINT if name == DEMO else ""
    size = facts.get("native_size", facts.get("image_size"))
    description = facts.get("description")
    return CheckpointFacts(
        native_size=size if _is_size(size) else _native_size(header, metadata),
        description=printable(description)[:LONGEST_DESCRIPTION] if isinstance(description, str) else hint,
    )


def _is_size(value: object) -> TypeGuard[int]:
    """Tells whether pictures of this size are possible."""
    return type(value) is int and MIN_SIZE <= value <= MAX_SIZE and value % SIZE_STEP == 0


def header_metadata(path: Path) -> dict[str, Any]:
    """Returns a safetensors file's metadata; empty for other formats, and for damaged files (reported on loading)."""
    return _metadata(_header(path))


def _metadata(header: Mapping[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _header(path: Path) -> dict[str, Any]:
    """Returns the names and metadata of a safetensors file, or the config of a diffusers folder's UNet."""
    try:
        if path.is_dir():
            return parse_json_object((path / "unet" / "config.json").read_bytes())
        if path.suffix != ".safetensors" or not path.is_file():
            return {}
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return parse_json_object(file.read(length)) if length <= HEADER_LIMIT else {}
    except (OSError, struct.error, Unreadable):
        return {}


def _ours(metadata: Mapping[str, Any]) -> dict[str, Any]:
    text = metadata.get("lightdiffusion") or metadata.get("sd_tiny")
    try:
        return parse_json_object(text) if isinstance(text, str) else {}
    except Unreadable:
        return {}


def _native_size(header: Mapping[str, Any], metadata: Mapping[str, Any]) -> int:
    """Returns 1024 for SDXL, 768 for SD2 with v-prediction (by its metadata), and 512 for everything else."""
    if header.get("addition_embed_type") == "text_time" or any(name.endswith(_SDXL_MARKS) for name in header):
        return SDXL_SIZE
    return 768 if str(metadata.get("modelspec.resolution", "")).startswith("768") else 512


def size_presets(native: int) -> list[tuple[str, int, int]]:
    """Lists (name, width, height) of common shapes, in pixels, near the checkpoint's native size."""
    if native == SDXL_SIZE:
        return SDXL_SHAPES
    step = 64 if native >= 512 else 8
    longer, longest = (round(native * ratio / step) * step for ratio in (1.5, 1.75))
    return [
        ("Square", native, native),
        ("Portrait", native, longer),
        ("Landscape", longer, native),
        ("Tall", native, longest),
        ("Wide", longest, native),
    ]
