"""Describes checkpoints for front ends without loading them (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from modules.catalog.headers import SDXL_MARKS, metadata_in, our_facts, read_header
from modules.core.errors import ModelFileError, printable
from modules.core.paths import ModelFolders
from modules.core.sizes import MAX_SIZE, MIN_SIZE, SIZE_STEP

DEMO = "demo.safetensors"
DEMOS = (DEMO, "demo_xl.safetensors")
DEMO_HINT = (
    "The demo model draws one circle, square, triangle or star in a colour on a plain background, and simple "
    'landscapes: "a red circle on a blue background", "a sunset over the ocean".'
)
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


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """Facts about a checkpoint. `native_size` is the side length in pixels of its training pictures, if known."""

    native_size: int
    description: str


def default_checkpoint(folders: ModelFolders) -> str | None:
    """Returns the user's first checkpoint, or else the first demo that is there, or else None."""
    names = folders.list("checkpoints")
    own = [name for name in names if name not in DEMOS]
    demos = [name for name in DEMOS if name in names]
    return (own or demos or [None])[0]


def has_own_checkpoint(folders: ModelFolders) -> bool:
    return not set(folders.list("checkpoints")).issubset(DEMOS)


def checkpoint_facts(folders: ModelFolders, name: str | None) -> CheckpointFacts:
    """Reads the facts from a file's header, or a folder's config; without them, the checkpoint counts as SD1.x."""
    try:
        path = folders.find("checkpoints", name) if name else None
    except ModelFileError:
        path = None
    header = read_header(path) if path is not None else {}
    metadata = metadata_in(header)
    facts = our_facts(metadata)
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


def _native_size(header: Mapping[str, Any], metadata: Mapping[str, Any]) -> int:
    """Returns 1024 for SDXL, 768 for SD2 with v-prediction (by its metadata), and 512 for everything else."""
    if header.get("addition_embed_type") == "text_time" or any(name.endswith(SDXL_MARKS) for name in header):
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
