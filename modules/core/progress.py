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
    """One finished sampling step, counted from 1.

    `denoised` is the predicted clean latent [N, C, h, w]; None if a GPU may still compute it.
    """

    step: int
    steps: int
    sigma: float
    denoised: Tensor | None


OnStep = Callable[[StepEvent], None]


class Skipped(Exception):
    """Ends the batch in the works; whoever makes a request's batches catches it and goes on with the next one."""


class CancelToken:
    """Flags that any thread may set and that the computation checks between steps. `skipped` counts skipped batches."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._skip = threading.Event()
        self.skipped = 0

    def cancel(self) -> None:
        self._event.set()

    def skip(self) -> None:
        """Asks to leave out the batch that is in the works."""
        self._skip.set()

    def take_skip(self) -> bool:
        """Returns whether `skip()` has been called, and counts it. Each call is answered once."""
        asked = self._skip.is_set()
        self._skip.clear()
        self.skipped += asked
        return asked

    def forget_skip(self) -> None:
        """Drops a call of `skip()` that came too late for its batch."""
        self._skip.clear()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled if `cancel()` has been called."""
        if self._event.is_set():
            raise Cancelled("Cancelled.")
