"""Saves what a stage needs to resume after an interruption, including the random state."""

from __future__ import annotations

import io
import time
from pathlib import Path

import torch
from torch import Tensor

from modules.core.files import write_whole

SAVE_SECONDS = 60.0


class StateFile:
    """The state to resume a stage after an interruption, written atomically."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= SAVE_SECONDS

    def save(self, state: dict[str, object]) -> None:
        self._last = time.monotonic()
        save_whole(state, self._path)

    def load(self, device: torch.device) -> dict[str, object] | None:
        return torch.load(self._path, map_location=device, weights_only=True) if self._path.exists() else None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def save_whole(value: object, path: Path) -> None:
    """Saves atomically with torch.save."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_whole(path, buffer.getvalue())


def random_state(device: torch.device) -> dict[str, Tensor]:
    return {
        "cpu": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}),
    }


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
