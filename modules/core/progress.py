"""Reports the progress of a long computation after each step, and lets the caller stop the computation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modules.core.errors import Cancelled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """One finished sampling step, counted from 1; `denoised` is the predicted clean latent [N, C, h, w]."""

    step: int
    steps: int
    sigma: float
    denoised: Tensor


OnStep = Callable[[StepEvent], None]


class CancelToken:
    """A flag that any thread may set and that the computation checks between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled if `cancel()` has been called."""
        if self._event.is_set():
            raise Cancelled("Cancelled.")
