"""Determines how each pass of a request samples: its settings and its noise levels."""

from __future__ import annotations

from dataclasses import dataclass

from modules.generation.options import GenerationOptions, HiresOptions
from modules.loader.detection.model_spec import ModelSpec
from modules.sampling.names import sampler_and_scheduler
from modules.sampling.schedules import make_sigmas
from modules.sampling.trained_noise import NoiseSchedule, noise_schedule


@dataclass(frozen=True, kw_only=True)
class PassSettings:
    """How one pass samples. A `denoise` of 1 means that it starts from pure noise."""

    phase: str
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    rescale_cfg: float = 0.0
    denoise: float = 1.0
    refiner_start: float | None = None  # None: the refiner has no part in this pass

    def sigmas(self, schedule: NoiseSchedule) -> list[float]:
        """Returns the noise levels of the steps, with zero at the end."""
        return make_sigmas(schedule, self.scheduler, self.steps, sampler=self.sampler, denoise=self.denoise)

    def refined_from(self, steps: int) -> int:
        """Returns the refiner's first step, from 0; `steps` if it makes none of them.

        Steps are counted as AUTOMATIC1111 counts them with "Refiner switch by sampling steps".
        """
        share = 1.0 if self.refiner_start is None else self.refiner_start
        return sum(step / steps < share for step in range(steps))


def noise_of(spec: ModelSpec) -> NoiseSchedule:
    """Returns the noise levels that this checkpoint was trained on."""
    return noise_schedule(
        spec.prediction,
        zero_terminal_snr=spec.zero_terminal_snr,
        sigma_range=spec.sigma_range,
        family=spec.family,
    )


def settings_of_passes(options: GenerationOptions) -> list[PassSettings]:
    """Returns the settings of each pass of the request, in order."""
    return [first_settings(options), *([hires_settings(options, options.hires)] if options.hires else [])]


def first_settings(options: GenerationOptions) -> PassSettings:
    """Returns the settings of the first pass. Before a second pass, the refiner has no part in it."""
    sampler, scheduler = sampler_and_scheduler(options.sampler, options.scheduler)
    return PassSettings(
        phase="sampling",
        sampler=sampler,
        scheduler=scheduler,
        steps=options.steps,
        cfg=options.cfg,
        rescale_cfg=options.rescale_cfg,
        denoise=options.init.denoise if options.init else 1.0,
        refiner_start=None if options.hires else options.refiner_start,
    )


def hires_settings(options: GenerationOptions, hires: HiresOptions) -> PassSettings:
    """Returns the settings of the second pass; missing ones are copied from the first pass."""
    first = first_settings(options)
    sampler, scheduler = sampler_and_scheduler(hires.sampler or first.sampler, hires.scheduler or first.scheduler)
    return PassSettings(
        phase="hires",
        sampler=sampler,
        scheduler=scheduler,
        steps=hires.steps or first.steps,
        cfg=first.cfg if hires.cfg is None else hires.cfg,
        rescale_cfg=first.rescale_cfg,
        denoise=hires.denoise,
        refiner_start=options.refiner_start,
    )
