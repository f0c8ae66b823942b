"""Runs the sampler once over a batch: from noise and an initial latent to clean latents."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modules.core.device import sent
from modules.core.progress import StepEvent
from modules.core.runner import Conditioning, Runner, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.generation.pass_settings import PassSettings
from modules.generation.passes.masked_denoiser import MaskedDenoiser
from modules.generation.passes.skipping import OUTER_BLOCKS, reusing_steps
from modules.generation.passes.steps_in_flight import StepsInFlight
from modules.sampling.denoiser import Denoiser
from modules.sampling.guidance import GuidedDenoiser, Rescale, needs_unconditional
from modules.sampling.noise import ImageNoise, PassNoise
from modules.sampling.samplers.sampler_common import Denoise, PairDenoise, move
from modules.sampling.samplers.table import planned_levels, sampler_for
from modules.sampling.schedules import start_latent
from modules.sampling.switching import RefinedDenoiser, ReusingDenoiser, StepClock, SwitchingDenoiser

if TYPE_CHECKING:
    from modules.generation.image_to_image import Start
    from modules.generation.job import Job
    from modules.generation.passes.batch import Batch


@torch.inference_mode()
def sample_pass(
    batch: Batch, settings: PassSettings, latent: Tensor, start: Start | None = None, noise: PassNoise | None = None
) -> Tensor:
    """Returns clean scaled latents [N, C, h, w] float32, sampled from `latent` [N, C, h, w] (zeros for text to image).

    `start` is the picture to repaint, if any: outside its mask, the result equals the picture's latent. `noise` is by
    default what the seeds give at the latent's size.
    """
    job, schedule = batch.job, batch.job.noise
    sigmas = settings.sigmas(schedule)
    latent = sent(latent, job.device).float()
    if len(sigmas) < 2:
        return latent
    batch.begin(settings.phase, len(sigmas) - 1)
    noise = noise or ImageNoise(batch.seeds, tuple(latent.shape[1:]))
    first_noise = move(noise.start(), latent)
    clock = StepClock(sigmas)
    denoise = refined_denoiser(batch, settings, latent, start, clock)
    inpaint = start.inpaint if start else None
    masked = None if inpaint is None else MaskedDenoiser(denoise, inpaint, first_noise, clock)
    x = start_latent(first_noise, sigmas, schedule, latent)

    steps = StepsInFlight(partial(batch.sampled, settings.phase), job.device)

    def on_step(event: StepEvent) -> None:
        clock.step_done()
        steps.add(event)

    result = sampler_for(settings.sampler, schedule)(masked or denoise, x, sigmas, noise=noise, on_step=on_step)
    steps.end()
    return masked.finished(result) if masked else result


def refined_denoiser(
    batch: Batch, settings: PassSettings, latent: Tensor, start: Start | None, clock: StepClock
) -> PairDenoise:
    """Prepares the network for this pass's shape and, if the refiner makes some of its steps, the refiner as well."""
    base = guided_denoiser(batch, settings, latent, start, clock)
    steps = len(clock.sigmas) - 1
    first = settings.refined_from(steps)
    refined = batch.refined()
    if refined is None or first == steps:
        return base
    return RefinedDenoiser(base, guided_denoiser(refined, settings, latent, start, clock), first, clock)


def guided_denoiser(
    batch: Batch, settings: PassSettings, latent: Tensor, start: Start | None, clock: StepClock
) -> GuidedDenoiser:
    """Prepares the network for this pass's shape, with guidance and the prompts of each step."""
    job, schedule = batch.job, batch.job.noise
    weights = batch.shares[0].job.prompts[settings.phase].weights
    unconditional = needs_unconditional(settings.cfg, settings.sampler, weights)
    contexts = batch.contexts(settings.phase, unconditional=unconditional, sizes=job.sizes_for(latent))
    timesteps = [schedule.sigma_to_t(sigma) for sigma in planned_levels(settings.sampler, clock.sigmas)]
    control = job.control_for(latent, contexts.conditional)
    skip = job.options.stable_fast_skip if job.unet.unet_function_wrapper else 0
    conditioning = Conditioning(
        texts=tuple(_moved(text, job) for text in contexts.distinct),
        concat=job.concat_for(latent, start),
        control=control,
        outer_blocks=OUTER_BLOCKS if skip else 0,
    )
    runner = prepare_runner(job, conditioning, timesteps)
    denoiser: Denoise = Denoiser(runner, schedule)
    if skip:
        active = [control and control.active(schedule.sigma_to_t(sigma)) for sigma in clock.sigmas[:-1]]
        denoiser = ReusingDenoiser(denoiser, runner.reuse, reusing_steps(skip, active), clock)
    switching = SwitchingDenoiser(denoiser, runner.switch, contexts.by_step, clock)
    rescale = Rescale(amount=settings.rescale_cfg, schedule=schedule) if settings.rescale_cfg else None
    return GuidedDenoiser(switching, settings.cfg, weights, rescale)


def prepare_runner(job: Job, conditioning: Conditioning, timesteps: list[float]) -> Runner:
    """Returns the runner, prepared for this pass's shape and contexts."""
    wrapper = job.unet.unet_function_wrapper
    runner = wrapper(job.unet.module) if wrapper else EagerRunner(job.unet.module)
    runner.prepare(conditioning, timesteps)
    return runner


def _moved(text: TextInputs, job: Job) -> TextInputs:
    vector = None if text.vector is None else text.vector.to(job.device, job.dtype)
    return TextInputs(text.context.to(job.device, job.dtype), vector)
