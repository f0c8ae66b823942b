"""Runs the sampler once over a batch: from noise and an initial latent to clean latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modules.core.progress import CancelToken, StepEvent
from modules.core.runner import Conditioning, Runner, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.generation.pass_settings import PassSettings
from modules.generation.progress import OnProgress, Progress
from modules.generation.prompts import Contexts
from modules.sampling.denoiser import Denoiser
from modules.sampling.guidance import GuidedDenoiser, Rescale, needs_unconditional
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import planned_levels, sampler_for
from modules.sampling.schedules import start_latent
from modules.sampling.switching import StepClock, SwitchingDenoiser

if TYPE_CHECKING:
    from modules.generation.image_to_image import Inpaint, Start
    from modules.generation.job import Job


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The surroundings of a pass: where it reports progress, what can cancel it, and its batch number."""

    on_progress: OnProgress | None
    cancel: CancelToken | None
    batch: int
    batches: int

    def begin(self, phase: str, steps: int) -> None:
        """Reports the start of a phase. Raises Cancelled once `cancel` is set."""
        if self.cancel is not None:
            self.cancel.check()
        self._tell(phase, 0, steps, None)

    def sampled(self, phase: str, event: StepEvent) -> None:
        """Reports one finished sampling step. Raises Cancelled once `cancel` is set."""
        if self.cancel is not None:
            self.cancel.check()
        self._tell(phase, event.step, event.steps, event.denoised)

    def decoded(self, done: int, pictures: int) -> None:
        self._tell("decoding", done, pictures, None)

    def _tell(self, phase: str, step: int, steps: int, denoised: Tensor | None) -> None:
        if self.on_progress is not None:
            self.on_progress(
                Progress(phase=phase, batch=self.batch, batches=self.batches, step=step, steps=steps, denoised=denoised)
            )


@torch.inference_mode()
def sample_pass(
    job: Job,
    settings: PassSettings,
    seeds: Sequence[int],
    latent: Tensor,
    outside: Outside,
    start: Start | None = None,
) -> Tensor:
    """Returns clean scaled latents [N, C, h, w] float32, sampled from `latent` [N, C, h, w] (zeros for text to image).

    `start` is the picture to repaint, if any: outside its mask, the result equals the picture's latent.
    """
    schedule = job.noise
    sigmas = settings.sigmas(schedule)
    latent = latent.to(job.device, torch.float32)
    if len(sigmas) < 2:
        return latent
    outside.begin(settings.phase, len(sigmas) - 1)
    noise = ImageNoise(seeds, tuple(latent.shape[1:]))
    first_noise = noise.start().to(latent)
    clock = StepClock(sigmas)
    denoise = guided_denoiser(job, settings, latent, start, clock)
    inpaint = start.inpaint if start else None
    if inpaint is not None:
        denoise = MaskedDenoiser(denoise, inpaint, first_noise)
    x = start_latent(first_noise, sigmas, schedule, latent)

    def on_step(event: StepEvent) -> None:
        clock.step_done()
        outside.sampled(settings.phase, event)

    result = sampler_for(settings.sampler, schedule)(denoise, x, sigmas, noise=noise, on_step=on_step)
    return result if inpaint is None else torch.lerp(inpaint.latent.to(result), result, inpaint.mask.to(result))


def guided_denoiser(
    job: Job, settings: PassSettings, latent: Tensor, start: Start | None, clock: StepClock
) -> GuidedDenoiser:
    """Prepares the network for this pass's shape, with guidance and the prompts of each step."""
    schedule, prompts = job.noise, job.prompts[settings.phase]
    unconditional = needs_unconditional(settings.cfg, settings.sampler, prompts.weights)
    contexts = prompts.contexts(latent.shape[0], unconditional=unconditional, sizes=job.sizes_for(latent))
    timesteps = [schedule.sigma_to_t(sigma) for sigma in planned_levels(settings.sampler, settings.sigmas(schedule))]
    runner = prepare_runner(job, contexts, latent, start, timesteps)
    denoiser = Denoiser(runner, schedule)
    switching = SwitchingDenoiser(denoiser, runner.switch, contexts.by_step, clock)
    rescale = Rescale(amount=settings.rescale_cfg, schedule=schedule) if settings.rescale_cfg else None
    return GuidedDenoiser(switching, settings.cfg, prompts.weights, rescale)


def prepare_runner(job: Job, contexts: Contexts, latent: Tensor, start: Start | None, timesteps: list[float]) -> Runner:
    """Returns the runner, prepared for this pass's shape and contexts."""
    conditioning = Conditioning(
        texts=tuple(_moved(text, job) for text in contexts.distinct),
        concat=job.concat_for(latent, start),
        control=job.control_for(latent, contexts.conditional),
    )
    wrapper = job.unet.unet_function_wrapper
    runner = wrapper(job.unet.module) if wrapper else EagerRunner(job.unet.module)
    runner.prepare(conditioning, timesteps)
    return runner


def _moved(text: TextInputs, job: Job) -> TextInputs:
    vector = None if text.vector is None else text.vector.to(job.device, job.dtype)
    return TextInputs(text.context.to(job.device, job.dtype), vector)


class MaskedDenoiser:
    """Keeps the part outside the mask equal to the original at each noise level.

    ComfyUI and A1111 inpaint like this with ordinary checkpoints; it is RePaint without resampling (arXiv 2201.09865).
    """

    def __init__(self, denoise: GuidedDenoiser, inpaint: Inpaint, noise: Tensor) -> None:
        self._denoise = denoise
        self._latent = inpaint.latent.to(noise)
        self._mask = inpaint.mask.to(noise)
        self._noise = noise

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._keep(self._denoise(self._noised(x, sigma), sigma))

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        guided, unconditional = self._denoise.with_unconditional(self._noised(x, sigma), sigma)
        return self._keep(guided), self._keep(unconditional)

    def _noised(self, x: Tensor, sigma: float) -> Tensor:
        return torch.lerp(self._latent + self._noise * sigma, x, self._mask)

    def _keep(self, denoised: Tensor) -> Tensor:
        return torch.lerp(self._latent, denoised, self._mask)
