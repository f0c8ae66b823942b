"""Loads the exported file and samples many prompts at once, with the app's own samplers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from modules.models.clip import ClipTextModel
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL
from modules.sampling.denoiser import Denoiser
from modules.sampling.guidance import GuidedDenoiser
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import SAMPLERS
from modules.sampling.schedules import make_sigmas, start_latent
from modules.sampling.trained_noise import noise_schedule
from modules.text.tokenizer import Tokenizer
from tools.demo_model.training.export import BOS_TOKEN, EOS_TOKEN, PREFIXES
from tools.demo_model.training.networks import SCALE, TEXT, UNET, VAE
from tools.demo_model.world.captions import CONTEXT


@dataclass
class DemoModel:
    """The three networks in fp32, as read from the shipped file."""

    unet: UNet
    vae: AutoencoderKL
    text: ClipTextModel
    device: torch.device

    @torch.no_grad()
    def context(self, prompts: list[str], clip_skip: int = 1) -> Tensor:
        encode = Tokenizer().encode
        rows = [encode(prompt)[: CONTEXT - 2] for prompt in prompts]
        ids = [[BOS_TOKEN, *row, *[EOS_TOKEN] * (CONTEXT - 1 - len(row))] for row in rows]
        return self.text(self.text.embed_tokens(torch.tensor(ids, device=self.device)), skip=clip_skip - 1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decodes scaled latents to pictures [N, 3, H, W] in -1..1."""
        return torch.cat([self.vae.decode(part / SCALE) for part in latents.split(32)]).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        return torch.cat([self.vae.encode(part) * SCALE for part in images.split(32)])


def load_demo(path: Path, device: torch.device) -> DemoModel:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["lightdiffusion"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in PREFIXES}
    for key, value in weights.items():
        name = next(name for name, prefix in PREFIXES.items() if key.startswith(prefix))
        if not key.endswith("position_ids"):
            parts[name][key.removeprefix(PREFIXES[name])] = value.float()
    unet = UNet(dataclasses.replace(UNET, heads=facts["unet_heads"], groups=facts["unet_groups"]))
    model = DemoModel(unet, AutoencoderKL(VAE), ClipTextModel(TEXT), device)
    for name in PREFIXES:
        network = getattr(model, name)
        network.load_state_dict(parts[name])
        network.requires_grad_(requires_grad=False).eval().to(device)
    return model


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Sampling options; the defaults are the ones behind the published table."""

    steps: int = 20
    cfg: float = 4.0
    sampler: str = "dpmpp_2m"
    scheduler: str = "karras"
    negative: str = ""
    clip_skip: int = 1
    size: tuple[int, int] = (128, 128)
    batch: int = 128


class NamedAndEmpty:
    """A sampling `Runner`: evaluates the UNet on the prompt rows, then on the negative rows."""

    def __init__(self, model: DemoModel, conditional: Tensor, unconditional: Tensor) -> None:
        self._unet, self._context = model.unet, torch.cat([conditional, unconditional])

    def prepare(self, conditioning: object, timesteps: list[float]) -> None:
        """Does nothing."""

    def step(self, x: Tensor, timestep: float) -> Tensor:
        when = torch.full((2 * len(x),), timestep, device=x.device)
        return self._unet(torch.cat([x, x]), when, self._context)


@torch.no_grad()
def sample(model: DemoModel, prompts: list[str], seeds: list[int], options: SampleOptions) -> Tensor:
    """Samples pictures [N, 3, H, W] in -1..1 on the CPU; each depends on its own seed, not on its batch."""
    schedule = noise_schedule()
    sigmas = make_sigmas(schedule, options.scheduler, options.steps, sampler=options.sampler)
    out = []
    for start in range(0, len(prompts), options.batch):
        part, chosen = prompts[start : start + options.batch], seeds[start : start + options.batch]
        negative = model.context([options.negative] * len(part), options.clip_skip)
        runner = NamedAndEmpty(model, model.context(part, options.clip_skip), negative)
        denoise = GuidedDenoiser(Denoiser(runner, schedule), options.cfg)
        noise = ImageNoise(chosen, (4, options.size[0] // 8, options.size[1] // 8))
        x = start_latent(noise.start(), sigmas, schedule).to(model.device)
        latents = SAMPLERS[options.sampler](denoise, x, sigmas, noise=noise)
        out.append(model.decode(latents).cpu())
    return torch.cat(out)
