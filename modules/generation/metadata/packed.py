"""Packs a choice (LoRA, ControlNet, HiresFix, start picture, tiles) into a JSON field of a picture's metadata and back.

Files are identified by their names and the start of their SHA-256, never by their folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from modules.core.typed import build, parse_json_object, text
from modules.generation.options import ControlChoice, HiresOptions, InitImage, LoraChoice, TiledOptions

AnyChoice = LoraChoice | ControlChoice | HiresOptions | InitImage | TiledOptions
Choice = TypeVar("Choice", LoraChoice, ControlChoice, HiresOptions, InitImage, TiledOptions)

HASH = "_hash"  # `image_hash` is the hash of the file in `image`


def pack(choice: AnyChoice, hashes: Mapping[str, str]) -> str:
    """Packs a choice; `hashes` maps attribute names to the files' hashes."""
    values: dict[str, object] = {}
    for name, value in asdict(choice).items():
        if value is not None:
            values[name] = value.name if isinstance(value, Path) else value
        if name in hashes:
            values[name + HASH] = hashes[name]
    return json.dumps(values, ensure_ascii=False)


def unpack(kind: type[Choice], packed: str) -> tuple[Choice, dict[str, str]]:
    """Unpacks a choice and the hashes of its files. Raises Unreadable, or an error from the choice itself."""
    values = parse_json_object(packed)
    hashes = {name.removesuffix(HASH): text(values.pop(name), name) for name in list(values) if name.endswith(HASH)}
    return build(kind, values), hashes


def text_encoder_key(position: int) -> str:
    return "Text encoder" if position == 0 else f"Text encoder {position + 1}"
