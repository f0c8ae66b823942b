"""What a front end shows about the models there are, without loading one (no torch here)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders

DEMO = "demo.safetensors"
DEMO_HINT = (
    "The demo model draws one circle, square, triangle or star in a colour on a plain background, and simple "
    'landscapes: "a red circle on a blue background", "a sunset over the ocean".'
)
HEADER_LIMIT = 100_000_000


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """`native_size` is the side in pixels that the checkpoint was trained for, as far as its header tells."""

    native_size: int
    description: str


def default_checkpoint(folders: ModelFolders) -> str | None:
    """The user's first own checkpoint, else the demo, else none."""
    names = folders.list("checkpoints")
    own = [name for name in names if name != DEMO]
    return (own or names or [None])[0]


def has_own_checkpoint(folders: ModelFolders) -> bool:
    return any(name != DEMO for name in folders.list("checkpoints"))


def checkpoint_facts(folders: ModelFolders, name: str | None) -> CheckpointFacts:
    """From the file's header alone; a file that tells nothing counts as SD1.x."""
    try:
        path = folders.find("checkpoints", name) if name else None
    except ModelFileError:
        path = None
    header = read_header(path) if path is not None else {}
    facts = _ours(header.get("__metadata__") or {})
    hint = DEMO_HINT if name == DEMO else ""
    size = facts.get("native_size", facts.get("image_size")) or _native_size(header)
    return CheckpointFacts(native_size=int(size), description=str(facts.get("description") or hint))


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file; empty for any other file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > HEADER_LIMIT:
                return {}
            header = json.loads(file.read(length))
    except (OSError, struct.error, ValueError):  # loading it will say what is wrong
        return {}
    return header if isinstance(header, dict) else {}


def _ours(metadata: dict[str, str]) -> dict[str, Any]:
    text = metadata.get("lightdiffusion") or metadata.get("sd_tiny")
    try:
        facts = json.loads(text) if text else {}
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _native_size(header: dict[str, Any]) -> int:
    """768 for SD2's v-prediction files that say so in their name for it, 512 for everything else."""
    metadata = header.get("__metadata__") or {}
    return 768 if str(metadata.get("modelspec.resolution", "")).startswith("768") else 512


def size_presets(native: int) -> list[tuple[str, int, int]]:
    """(name, width, height) of usual shapes with about as many pixels a side as the checkpoint knows."""
    step = 64 if native >= 512 else 8
    longer, longest = (round(native * ratio / step) * step for ratio in (1.5, 1.75))
    return [
        ("Square", native, native),
        ("Portrait", native, longer),
        ("Landscape", longer, native),
        ("Tall", native, longest),
        ("Wide", longest, native),
    ]
