"""Describes the progress of a running generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A finished step of batch `batch` (from 1), or step 0 of a new phase.

    `denoised` is the predicted clean latent [N, C, h, w] of a checkpoint of `family`. `part` describes the current part
    of a larger task; it is empty if the request is the whole task.
    """

    phase: str  # "sampling", "hires" or "decoding"
    batch: int
    batches: int
    step: int
    steps: int
    denoised: Tensor | None = None
    family: str = "SD1.x"
    part: str = ""


OnProgress = Callable[[Progress], None]
