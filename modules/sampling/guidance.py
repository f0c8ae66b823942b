"""Applies classifier-free guidance: combines the predictions for the prompt's parts with the unconditional one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.sampling.names import uses_unconditional
from modules.sampling.samplers.sampler_common import Denoise
from modules.sampling.trained_noise import NoiseSchedule


def needs_unconditional(cfg: float, sampler: str, weights: Sequence[float] = (1.0,)) -> bool:
    """Returns True if the guidance formula below uses the negative prompt, which the runner must then prepare."""
    return cfg != 1.0 or sum(weights) != 1.0 or uses_unconditional(sampler)


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """Removes the contrast that guidance adds; `amount` ranges from 0 (none of it) to 1 (all of it).

    Formula: Lin et al. 2023 (arXiv 2305.08891), section 3.4, applied to the network's output (noise or velocity) like
    diffusers' `guidance_rescale`.
    """

    amount: float
    schedule: NoiseSchedule

    def __call__(self, guided: Tensor, conditional: Tensor, x: Tensor, sigma: float) -> Tensor:
        """Returns the rescaled guided clean latents, all [N, ...]; `conditional` are the clean latents at cfg 1."""
        base = x * self.schedule.scaling(sigma).kept  # the clean latents for an output of zero
        output = base - guided  # the network's output times a factor that cancels out below
        shrunk = _deviation(base - conditional) / _deviation(output)
        return base - output * torch.lerp(torch.ones_like(shrunk), shrunk, self.amount)


def _deviation(output: Tensor) -> Tensor:
    """Returns the standard deviation of each picture's output: [N, ...] -> [N, 1, ...]."""
    return output.std(dim=tuple(range(1, output.ndim)), keepdim=True)


class GuidedDenoiser:
    """The samplers' `denoise` function: negative + cfg * (sum of weight * (part - negative)), over the prompt's parts.

    `weights` has one number per prompt part joined by AND (Liu et al. 2022, composable diffusion). At cfg 1 with
    weights that sum to 1, the negative prompt cancels out and is not needed. With CFG++ samplers, `cfg` is the paper's
    lambda, which is between 0 and 1 or slightly above.
    """

    def __init__(
        self, denoiser: Denoise, cfg: float, weights: Sequence[float] = (1.0,), rescale: Rescale | None = None
    ) -> None:
        """`denoiser` returns the rows of all pictures part by part, then the unconditional rows."""
        self._denoiser = denoiser
        self._cfg = cfg
        self._weights = tuple(weights)
        self._rescale = rescale

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        *parts, last = self._predictions(x, sigma)
        if len(parts) == len(self._weights):
            return self._guide(parts, last, x, sigma)
        if self._cfg != 1.0 or sum(self._weights) != 1.0:
            raise ValueError(f"cfg {self._cfg} needs a runner prepared with the unconditional half.")
        return self._weighted([*parts, last])

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Returns the guided prediction, and the unconditional prediction that CFG++ uses for the noise."""
        *parts, last = self._predictions(x, sigma)
        if len(parts) != len(self._weights):
            raise ValueError("CFG++ needs a runner prepared with the unconditional half, at cfg 1 too.")
        return self._guide(parts, last, x, sigma), last

    def _predictions(self, x: Tensor, sigma: float) -> tuple[Tensor, ...]:
        denoised = self._denoiser(x, sigma)
        return denoised.split(x.shape[0])

    def _guide(self, parts: Sequence[Tensor], unconditional: Tensor, x: Tensor, sigma: float) -> Tensor:
        total = sum(self._weights)
        conditional = self._weighted(parts)
        if total != 1.0:
            conditional = conditional + unconditional * (1.0 - total)
        if self._cfg == 1.0:
            return conditional
        guided = torch.lerp(unconditional, conditional, self._cfg)
        return guided if self._rescale is None else self._rescale(guided, conditional, x, sigma)

    def _weighted(self, parts: Sequence[Tensor]) -> Tensor:
        if self._weights == (1.0,):
            return parts[0]
        products = (part * weight for part, weight in zip(parts, self._weights, strict=True))
        return sum(products, torch.zeros_like(parts[0]))
