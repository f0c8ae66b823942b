"""Progress: what a generation reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One finished step of batch `batch` (from 1), or step 0 of a phase that begins. `denoised` is the predicted clean
    latent [N, C, h, w].

    `part` says in words which part of a larger task this is; it is empty where the request is the whole task.
    """

    phase: str  # "sampling", "hires" or "decoding"
    batch: int
    batches: int
    step: int
    steps: int
    denoised: Tensor | None = None
    part: str = ""


OnProgress = Callable[[Progress], None]
