"""Classifier-free guidance: one clean prediction from a conditional and an unconditional one."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.sampling.denoiser import Denoiser
from modules.sampling.names import uses_unconditional


def needs_unconditional(cfg: float, sampler: str) -> bool:
    """Whether a runner must be prepared with the negative prompt: not at cfg = 1, except for CFG++."""
    return cfg != 1.0 or uses_unconditional(sampler)


class GuidedDenoiser:
    """The `denoise` that samplers call. With CFG++ samplers `cfg` is the paper's lambda: 0 to 1, little more if any."""

    def __init__(self, denoiser: Denoiser, cfg: float) -> None:
        self._denoiser = denoiser
        self._cfg = cfg

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        denoised = self._denoiser(x, sigma)
        if denoised.shape[0] == x.shape[0]:
            if self._cfg != 1.0:
                raise ValueError(f"cfg {self._cfg} needs a runner prepared with the unconditional half.")
            return denoised
        return self._combine(*denoised.chunk(2))

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided prediction and the unconditional one, which CFG++ takes the noise from."""
        denoised = self._denoiser(x, sigma)
        if denoised.shape[0] == x.shape[0]:
            raise ValueError("CFG++ needs a runner prepared with the unconditional half, at cfg 1 too.")
        conditional, unconditional = denoised.chunk(2)
        return self._combine(conditional, unconditional), unconditional

    def _combine(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        if self._cfg == 1.0:
            return conditional
        return torch.lerp(unconditional, conditional, self._cfg)
