"""Lists every sampler by id, and predicts the noise levels at which each one calls the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.cfg_pp import (
    sample_dpmpp_2m_cfg_pp,
    sample_dpmpp_sde_cfg_pp,
    sample_euler_ancestral_cfg_pp,
    sample_euler_cfg_pp,
)
from modules.sampling.samplers.dpm_solver import sample_dpm_adaptive, sample_dpm_fast
from modules.sampling.samplers.euler import (
    sample_dpm_2,
    sample_dpm_2_ancestral,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_heunpp2,
)
from modules.sampling.samplers.markov import sample_ddim, sample_ddpm, sample_lcm, sample_tcd
from modules.sampling.samplers.multistep import sample_dpmpp_2m, sample_lms
from modules.sampling.samplers.sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
)
from modules.sampling.samplers.unipc import sample_uni_pc, sample_uni_pc_bh2
from modules.sampling.trained_noise import NoiseSchedule

# sample(denoise, x, sigmas, *, noise, on_step=None) -> clean latent; CFG++ needs `denoise.with_unconditional`.
Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {
    "euler": sample_euler,
    "euler_cfg_pp": sample_euler_cfg_pp,
    "euler_ancestral": sample_euler_ancestral,
    "euler_ancestral_cfg_pp": sample_euler_ancestral_cfg_pp,
    "heun": sample_heun,
    "heunpp2": sample_heunpp2,
    "dpm_2": sample_dpm_2,
    "dpm_2_ancestral": sample_dpm_2_ancestral,
    "lms": sample_lms,
    "dpm_fast": sample_dpm_fast,
    "dpm_adaptive": sample_dpm_adaptive,
    "dpmpp_2s_ancestral": sample_dpmpp_2s_ancestral,
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_sde_cfg_pp": sample_dpmpp_sde_cfg_pp,
    "dpmpp_2m": sample_dpmpp_2m,
    "dpmpp_2m_cfg_pp": sample_dpmpp_2m_cfg_pp,
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
    "ddpm": sample_ddpm,
    "ddim": sample_ddim,
    "lcm": sample_lcm,
    "tcd": sample_tcd,
    "uni_pc": sample_uni_pc,
    "uni_pc_bh2": sample_uni_pc_bh2,
}


def sampler_for(name: str, trained: NoiseSchedule) -> Sampler:
    """Returns a sampler for a network with these trained levels, which only TCD takes into account."""
    return partial(sample_tcd, trained=trained) if name == "tcd" else SAMPLERS[name]


class _Recorder:
    """A denoiser without a network that records the requested levels."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.levels.append(sigma)
        return x

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self(x, sigma), x


def planned_levels(sampler: str, sigmas: list[float]) -> list[float]:
    """Lists the levels a sampler evaluates, in order, for `Runner.prepare`; for `dpm_adaptive`, this is a guess."""
    recorder = _Recorder()
    SAMPLERS[sampler](recorder, torch.zeros(1, 1), sigmas, noise=ImageNoise([0], (1,)))
    return recorder.levels
