"""Scales on disk, beside the kept graphs, under a hash of the weights that a LoRA leaves alone.

These are the norms and biases. So a network whose LoRA was on at the time has the same scales as without it, and each
trained checkpoint has its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.stable_fast.store.cache import (
    BROKEN,
    cache_folder,
    discard,
    read_file,
    replace_file,
    sealed,
    told_once,
    unsealed,
)


@dataclass(frozen=True)
class Kept:
    """Scales by name, and the first and the last timestep of the pictures that they are from; () if it had none.

    `error` is that of the latest of these pictures' last step (see error.py); None if it is unknown.
    """

    scales: Mapping[str, float] = field(default_factory=dict)
    timesteps: tuple[float, ...] = ()
    error: float | None = None


@torch.no_grad()
def scales_path(module: nn.Module, precision: str) -> Path:
    """Where the scales of this network are kept."""
    digest = hashlib.sha256(precision.encode())
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for name, weight in module.named_parameters():
        if weight.dim() == 1:
            digest.update(f"{name} {len(weight)} {weight.dtype}".encode())
            groups.setdefault(weight.dtype, []).append(weight.detach())
    for weights in groups.values():
        digest.update(torch.cat(weights).cpu().view(torch.uint8).numpy().tobytes())
    return cache_folder() / "scales" / f"{type(module).__name__}-{digest.hexdigest()[:32]}.json"


def read_scales(path: Path) -> Kept:
    """The kept scales; none if there are none, or if the file is damaged."""
    try:
        if not path.exists():
            return Kept()
        return _checked(json.loads(unsealed(read_file(path), path.stem)))
    except BROKEN as error:
        discard(path, error)
        return Kept()


def _checked(kept: Any) -> Kept:
    scales = {str(name): float(scale) for name, scale in kept["scales"].items()}
    timesteps = tuple(float(timestep) for timestep in kept["timesteps"])
    if not all(math.isfinite(scale) and scale > 0 for scale in scales.values()) or len(timesteps) not in (0, 2):
        raise ValueError("it holds no scales")
    return Kept(scales, timesteps, None if kept["error"] is None else float(kept["error"]))


def write_scales(path: Path, kept: Kept) -> None:
    text = json.dumps({"scales": dict(sorted(kept.scales.items())), "timesteps": kept.timesteps, "error": kept.error})
    with told_once():
        replace_file(path, sealed(text, path.stem))
