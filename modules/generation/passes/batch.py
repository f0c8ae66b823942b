"""A batch of pictures that are sampled together. They may belong to several requests."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from modules.core.errors import Cancelled
from modules.core.progress import Skipped, StepEvent
from modules.generation.progress import Outside
from modules.generation.prompts import Contexts, joined_contexts
from modules.text.size_vector import SizeFeatures

if TYPE_CHECKING:
    from modules.generation.job import Job


@dataclass(frozen=True, kw_only=True, eq=False)
class Share:
    """The pictures of one request in a batch, by their numbers in the request."""

    job: Job
    indices: range
    outside: Outside

    @property
    def seeds(self) -> list[int]:
        return self.job.seeds(self.indices)


@dataclass(kw_only=True)
class Batch:
    """Pictures of requests that agree in everything but prompts, seeds and number; the rows are share by share.

    `job` stands for what they have in common: options, networks, pictures to start from. `skipped` are the places of
    the shares whose pictures nobody wants any more. Pictures `in_flight` may be handed out before the GPU has them.
    """

    job: Job
    shares: tuple[Share, ...]
    skipped: set[int] = field(default_factory=set[int])
    in_flight: bool = False

    @property
    def seeds(self) -> list[int]:
        return [seed for share in self.shares for seed in share.seeds]

    @property
    def rows(self) -> list[slice]:
        """The rows of each share."""
        ends = list(accumulate(len(share.indices) for share in self.shares))
        return [slice(end - len(share.indices), end) for share, end in zip(self.shares, ends, strict=True)]

    def contexts(self, phase: str, *, unconditional: bool, sizes: SizeFeatures | None) -> Contexts:
        """Builds the rows of each share's own prompts (see `joined_contexts`)."""
        prompts = [(share.job.prompts[phase], len(share.indices)) for share in self.shares]
        return joined_contexts(prompts, unconditional=unconditional, sizes=sizes)

    def refined(self) -> Batch | None:
        """Returns the same batch on the refiner's networks; None if the requests have no refiner."""
        jobs = [share.job.refiner for share in self.shares]
        if self.job.refiner is None:
            return None
        shares = [replace(share, job=job) for share, job in zip(self.shares, jobs, strict=True) if job is not None]
        return Batch(job=self.job.refiner, shares=tuple(shares), skipped=self.skipped)

    def make_room(self) -> bool:
        """After memory ran out: makes more room on the GPU. Returns False if there is no more room to make.

        Several requests make none. They can be made one by one, and what leaves the GPU would slow down later requests.
        """
        roomier = self.job.with_room() if len(self.shares) == 1 else None
        self.job = roomier or self.job
        return roomier is not None

    def check(self) -> None:
        """Raises Cancelled once every request is cancelled, and Skipped once none wants its pictures.

        Until then, the rows of a cancelled or skipped request are computed.
        """
        if all(share.outside.is_cancelled for share in self.shares):
            raise Cancelled("Cancelled.")
        self.skipped.update(place for place, share in enumerate(self.shares) if share.outside.take_skip())
        if not any(self.wants(place) for place in range(len(self.shares))):
            raise Skipped

    def wants(self, place: int) -> bool:
        """Returns whether the share at `place` is neither cancelled nor skipped."""
        return place not in self.skipped and not self.shares[place].outside.is_cancelled

    @contextmanager
    def skippable(self) -> Generator[None, None, None]:
        """Ends quietly if the batch is skipped. A skip that comes too late for it does not reach the next batch."""
        try:
            with suppress(Skipped):
                yield
        finally:
            for share in self.shares:
                share.outside.forget_skip()

    def begin(self, phase: str, steps: int) -> None:
        """Reports the start of a phase to each request. Raises Cancelled once all are cancelled."""
        self._tell(lambda outside, rows: outside.begin(phase, steps))

    def sampled(self, phase: str, event: StepEvent) -> None:
        """Reports a step to each request, with its own latents. Raises Cancelled once all are cancelled."""
        denoised = event.denoised
        self._tell(lambda outside, rows: outside.sampled(phase, event, None if denoised is None else denoised[rows]))

    def _tell(self, tell: Callable[[Outside, slice], None]) -> None:
        self.check()
        for place, (share, rows) in enumerate(zip(self.shares, self.rows, strict=True)):
            if self.wants(place):
                tell(share.outside, rows)
