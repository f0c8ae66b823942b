"""Keeps the part outside a mask while a pass samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modules.sampling.samplers.sampler_common import PairDenoise
from modules.sampling.switching import StepClock

if TYPE_CHECKING:
    from modules.generation.image_to_image import Inpaint


class MaskedDenoiser:
    """Keeps the part outside the mask equal to the original at each noise level.

    ComfyUI and A1111 inpaint like this with ordinary checkpoints; it is RePaint without resampling (arXiv 2201.09865).
    A soft mask grows from step to step (see `mask_of_step`).
    """

    def __init__(self, denoise: PairDenoise, inpaint: Inpaint, noise: Tensor, clock: StepClock) -> None:
        self._denoise = denoise
        self._latent = inpaint.latent.to(noise)
        self._mask = inpaint.mask.to(noise)
        self._soft = inpaint.soft
        self._noise = noise
        self._clock = clock

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        mask = self._mask_at(sigma)
        return self._keep(self._denoise(self._noised(x, sigma, mask), sigma), mask)

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        mask = self._mask_at(sigma)
        guided, unconditional = self._denoise.with_unconditional(self._noised(x, sigma, mask), sigma)
        return self._keep(guided, mask), self._keep(unconditional, mask)

    def finished(self, result: Tensor) -> Tensor:
        """Returns the pass's result with the original where nothing was repainted."""
        steps = len(self._clock.sigmas) - 1
        return self._keep(result, mask_of_step(self._mask, steps - 1, steps) if self._soft else self._mask)

    def _mask_at(self, sigma: float) -> Tensor:
        if not self._soft:
            return self._mask
        return mask_of_step(self._mask, self._clock.step(sigma), len(self._clock.sigmas) - 1)

    def _noised(self, x: Tensor, sigma: float, mask: Tensor) -> Tensor:
        return torch.lerp(self._latent + self._noise * sigma, x, mask)

    def _keep(self, denoised: Tensor, mask: Tensor) -> Tensor:
        return torch.lerp(self._latent, denoised, mask)


def mask_of_step(mask: Tensor, step: int, steps: int) -> Tensor:
    """Returns the mask (0 or 1, of the same shape) of one of a pass's steps, from 0.

    Differential Diffusion (Levin and Fried 2023, arXiv 2306.00950, algorithm 1): a place is released at the step where
    its strength reaches the share of the steps still to come. White is repainted from the first step, black never.
    """
    return (mask >= 1 - step / steps).to(mask)
