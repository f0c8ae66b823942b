"""Describes the progress of a running generation, and passes it on to whoever asked for the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modules.core.progress import CancelToken, StepEvent

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


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The surroundings of a batch: where it reports progress, what can cancel it, its number and the model family."""

    on_progress: OnProgress | None
    cancel: CancelToken | None
    batch: int
    batches: int
    family: str

    @property
    def is_cancelled(self) -> bool:
        return self.cancel is not None and self.cancel.cancelled

    def take_skip(self) -> bool:
        return self.cancel is not None and self.cancel.take_skip()

    def forget_skip(self) -> None:
        if self.cancel is not None:
            self.cancel.forget_skip()

    def begin(self, phase: str, steps: int) -> None:
        """Reports the start of a phase."""
        self._tell(phase, 0, steps, None)

    def sampled(self, phase: str, event: StepEvent, denoised: Tensor | None) -> None:
        """Reports one finished sampling step. `denoised` are the clean latents of the pictures asked for here."""
        self._tell(phase, event.step, event.steps, denoised)

    def decoded(self, done: int, pictures: int) -> None:
        self._tell("decoding", done, pictures, None)

    def _tell(self, phase: str, step: int, steps: int, denoised: Tensor | None) -> None:
        if self.on_progress is not None:
            self.on_progress(
                Progress(
                    phase=phase,
                    batch=self.batch,
                    batches=self.batches,
                    step=step,
                    steps=steps,
                    denoised=denoised,
                    family=self.family,
                )
            )
