"""Makes the pictures of several requests in one batch. They agree in all but prompts, seeds and number of pictures."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate

from modules.core.device import made_current
from modules.core.errors import Cancelled, LightDiffusionError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture, PictureInFlight
from modules.generation.job import Job
from modules.generation.options import GenerationOptions
from modules.generation.passes.batch import Batch, Share
from modules.generation.progress import OnProgress, Outside
from modules.generation.session import Session
from modules.generation.text_to_image import batch_with_room, device_errors_for_people, jobs_with_room, shares_of
from modules.generation.wording.spelled_out import spelled_out

MadeTogether = Picture | PictureInFlight

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One of the requests that are made together, with its own progress and its own cancel."""

    options: GenerationOptions
    on_progress: OnProgress
    cancel: CancelToken


@dataclass(frozen=True)
class Ended:
    """A request has all its pictures or, with an error, gets no more."""

    error: LightDiffusionError | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that is ready to be sampled; `number` is its place among the requests."""

    number: int
    request: Request
    job: Job

    def shares(self) -> list[Share]:
        """Returns its batches by itself."""
        return shares_of(self.job, self.request.on_progress, self.request.cancel)

    def share(self) -> Share:
        """Returns all its pictures, as a part of one batch."""
        outside = Outside(
            on_progress=self.request.on_progress,
            cancel=self.request.cancel,
            batch=1,
            batches=1,
            family=self.job.model.spec.family,
        )
        return Share(job=self.job, indices=range(self.job.options.images), outside=outside)

    @property
    def pictures(self) -> int:
        """The number of pictures to come."""
        options = self.job.options
        passes = 2 if options.hires is not None and options.hires.keep_first_pass else 1
        return passes * (options.images if options.only is None else 1)

    @property
    def form(self) -> tuple[object, ...]:
        """What prompts must have in common to be rows of one batch, for the refiner, too."""
        jobs = [job for job in (self.job, self.job.refiner) if job is not None]
        return tuple(prompts.form for job in jobs for prompts in job.prompts.values())


def generate_together(requests: Sequence[Request], session: Session) -> Iterator[tuple[int, MadeTogether | Ended]]:
    """Yields each picture with the number of its request and, after a request's last picture, that it has ended.

    A request that cannot be prepared, or is cancelled, ends by itself with its error. An error that concerns the whole
    batch is raised: requests that have not ended until then can be made one by one.
    """
    with made_current(session.device), device_errors_for_people(session):
        ready: list[Prepared] = []
        for number, prepared in prepare_together(requests, session):
            if isinstance(prepared, Job):
                ready.append(Prepared(number=number, request=requests[number], job=prepared))
            else:
                yield number, Ended(prepared)
        job = ready[-1].job if ready else None  # the latest, since room may have been made on the GPU in between
        for group in groups(ready):
            job = yield from make_group(group, job or group[0].job)


def prepare_together(requests: Sequence[Request], session: Session) -> Iterator[tuple[int, Job | LightDiffusionError]]:
    """Prepares all requests at once. If one of them cannot be prepared, each is prepared by itself."""
    said: dict[int, GenerationOptions] = {}
    for number, request in enumerate(requests):
        try:
            request.cancel.check()
            (said[number],) = spelled_out(request.options, session.folders)  # tasks/gather.py lets no variants in
        except LightDiffusionError as error:
            yield number, error
    try:
        jobs = jobs_with_room(list(said.values()), session) if said else []
    except LightDiffusionError as error:
        log.debug("Not all of %d requests can be prepared: %s", len(said), error)
    else:
        yield from zip(said, jobs, strict=True)
        return
    for number, options in said.items():
        yield number, job_or_error(options, session)


def job_or_error(options: GenerationOptions, session: Session) -> Job | LightDiffusionError:
    try:
        return jobs_with_room([options], session)[0]
    except LightDiffusionError as error:
        return error


def make_group(group: Sequence[Prepared], job: Job) -> Generator[tuple[int, MadeTogether | Ended], None, Job]:
    """Makes one batch, or the batches of a single request. Returns the job that stands for all in the next group."""
    together = tuple(each.share() for each in group)
    missing = {each.number: each.pictures for each in group}
    with suppress(Cancelled):  # all of them, which they are told below
        for shares in [together] if len(group) > 1 else [(share,) for share in group[0].shares()]:
            batch = Batch(job=job, shares=shares, in_flight=len(group) > 1)
            for share, picture in batch_with_room(batch):
                number = group[shares.index(share)].number
                yield number, picture
                missing[number] -= 1
                if not missing[number]:
                    yield number, Ended()
            job = batch.job
    for each in group:
        if missing[each.number]:
            is_cancelled = each.request.cancel.cancelled  # or else the missing pictures were skipped
            yield each.number, Ended(Cancelled("Cancelled.") if is_cancelled else None)
    return job


def groups(ready: Sequence[Prepared]) -> list[list[Prepared]]:
    """Divides requests into those that are one batch: their prompts have one form, and a usual number of pictures."""
    by_form: dict[tuple[object, ...], list[Prepared]] = {}
    for each in ready:
        by_form.setdefault(each.form, []).append(each)
    divided: list[list[Prepared]] = []
    for alike in by_form.values():
        while alike:
            count = number_together([each.job.options.number for each in alike])
            divided.append(alike[:count])
            del alike[:count]
    return divided


def number_together(numbers: Sequence[int], most: int | None = None) -> int:
    """Returns how many of the first requests to make together, by their numbers of pictures.

    Their sum is the largest of 1, 2, 4, 8, ... up to `most`, since Stable-Fast captures a graph for each size of batch.
    If no sum is one of these, the first request is made by itself.
    """
    sums = enumerate(accumulate(numbers), start=1)
    usual = [count for count, total in sums if total & (total - 1) == 0 and (most is None or total <= most)]
    return max(usual, default=1)
