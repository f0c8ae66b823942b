"""Writes model files that have a header and no weights, since cards read nothing else."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def save_header(
    path: Path, metadata: Mapping[str, Any] | None = None, shapes: Mapping[str, Sequence[int]] | None = None
) -> Path:
    """Writes a safetensors header with these tensors; its metadata may have any values."""
    entries = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in (shapes or {}).items()}
    text = json.dumps({"__metadata__": metadata or {}, **entries}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path
