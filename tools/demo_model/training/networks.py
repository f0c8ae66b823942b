"""Builds the demo model's networks from the app's own modules, with initial weights that let them train fast."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.models.attention import SpatialTransformer
from modules.models.clip import ClipTextModel
from modules.models.configs import TextConfig, UNetConfig, VAEConfig
from modules.models.layers import ResBlock
from modules.models.unet import UNet
from modules.models.vae import AttnBlock, AutoencoderKL, ResnetBlock, VAEDownsample, VAEUpsample
from modules.text.tokenizer import Tokenizer
from tools.demo_model.world.captions import EOS, Captions

NATIVE_SIZE = 128
UNET = UNetConfig(channels=(64, 96, 128, 96), context_dim=128, heads=2, groups=16)
VAE = VAEConfig(channels=(32, 64, 96, 96), groups=8)
TEXT = TextConfig(width=128, layers=4, heads=2, mlp_width=512)
SCALE = VAE.scale_factor


CLIP_SKIP_SHARE = 0.15  # share of the rows that skip the last layer in training, like clip skip 2


@dataclass
class Networks(ABC):
    """The networks of a demo model; `text` has the compact vocabulary of `captions`, which export widens."""

    vae: AutoencoderKL
    text: nn.Module
    unet: UNet
    captions: Captions
    device: torch.device

    @abstractmethod
    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Reads compact ids [B, 77]: returns what the UNet's attention reads [B, 77, W], and a summary [B, S]."""

    @abstractmethod
    def condition(self, ids: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Returns the UNet's arguments for captions [B, 77] of pictures with these sizes [B, 6]."""

    def coarse(self) -> list[nn.Parameter]:
        """Returns the UNet's weights that its file stores in 8 bits."""
        return []


@dataclass
class SD1Networks(Networks):
    """The first demo model: one text encoder, and a UNet that is told no sizes."""

    text: ClipTextModel

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        states = self._states(ids)
        return states, states[torch.arange(len(ids), device=ids.device), end_marks(ids)]

    def condition(self, ids: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        return {"context": self._states(ids)}

    def _states(self, ids: Tensor) -> Tensor:
        embeddings = self.text.embed_tokens(ids)
        split = int(len(ids) * CLIP_SKIP_SHARE)
        if split == 0:
            return self.text(embeddings)
        return torch.cat([self.text(embeddings[:split], skip=1), self.text(embeddings[split:])])


def end_marks(ids: Tensor) -> Tensor:
    """Returns the position of the first EOS in each row of compact ids [B, 77]."""
    return (ids == EOS).int().argmax(1)


def build_networks(device: torch.device, seed: int) -> Networks:
    torch.manual_seed(seed)
    captions = Captions(device, Tokenizer().encode)
    text = ClipTextModel(dataclasses.replace(TEXT, vocab_size=captions.size))
    networks = SD1Networks(AutoencoderKL(VAE), text, UNet(UNET), captions, device)
    embeddings = text.text_model.embeddings
    initialise_text(embeddings.token_embedding.weight, embeddings.position_embedding.weight)
    initialise_unet(networks.unet)
    for network in (networks.vae, text, networks.unet):
        network.to(device)
    return networks


def working_dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def batch_size(device: torch.device, on_gpu: int) -> int:
    return on_gpu if device.type == "cuda" else max(on_gpu // 16, 8)


def alphas_cumprod(device: torch.device) -> Tensor:
    """Returns SD's scaled-linear schedule with 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float().to(device)


@torch.no_grad()
def initialise_text(tokens: Tensor, positions: Tensor) -> None:
    tokens.normal_(0, 0.5)
    positions.normal_(0, 0.1)


@torch.no_grad()
def initialise_unet(unet: UNet) -> None:
    """Sets residual branches to zero, so that the first steps have a plain path from input to output."""
    last = [unet.out[2]]
    for module in unet.modules():
        if isinstance(module, ResBlock):
            last.append(module.out_layers[3])
        if isinstance(module, SpatialTransformer):
            module.proj_out.weight.mul_(0.1)
            nn.init.zeros_(module.proj_out.bias)
    for convolution in last:
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)


def _identity(convolution: nn.Conv2d, spread: float = 0.1) -> None:
    """Makes the kernel copy channels through its centre; the other weights stay small noise."""
    outputs, inputs, height, width = convolution.weight.shape
    convolution.weight.mul_(spread)
    convolution.bias.zero_()
    for index in range(outputs if outputs >= inputs else inputs):
        convolution.weight[index % outputs, index % inputs, height // 2, width // 2] += 1


def _average(convolution: nn.Conv2d) -> None:
    convolution.weight.normal_(0, 0.02)
    convolution.bias.zero_()
    for index in range(convolution.weight.shape[0]):
        convolution.weight[index, index] += 1 / 9


def _entry(convolution: nn.Conv2d) -> None:
    """Initialises the first convolution: half of the channels are random mixes, the others the constants +1 and -1.

    With those constants GroupNorm stays nearly linear in the colours, so a fresh narrow network learns fast.
    """
    inputs = convolution.weight.shape[1]
    convolution.weight.normal_(0, (0.05 / inputs) ** 0.5)
    convolution.weight[:, :, 1, 1] += torch.randn_like(convolution.weight[:, :, 1, 1]) * (1.5 / inputs) ** 0.5
    convolution.bias.zero_()
    for first, value in ((0, 1.0), (1, -1.0)):
        convolution.weight[first::4] = 0
        convolution.bias[first::4] = value


def _features(layer: nn.Conv2d, run: object, image: Tensor) -> Tensor:
    """Returns the input of `layer` during `run(image)`, as rows [cells, channels]."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    run(image)  # type: ignore[operator]
    hook.remove()
    return seen[0].permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def initialise_vae(vae: AutoencoderKL, images: Tensor) -> None:
    """Initialises a near-identity main path, empty residual branches, PCA latents and a least-squares output layer.

    With the usual random weights, training stalls for minutes at this width. These weights start with a blurred copy of
    the picture.
    """
    for module in vae.modules():
        if isinstance(module, ResnetBlock):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if isinstance(module.nin_shortcut, nn.Conv2d):
                _identity(module.nin_shortcut)
        elif isinstance(module, AttnBlock):
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)
        elif isinstance(module, VAEUpsample):
            _identity(module.conv)
        elif isinstance(module, VAEDownsample):
            _average(module.conv)
    for entry in (vae.encoder.conv_in, vae.decoder.conv_in):
        _entry(entry)
    for quant in (vae.quant_conv, vae.post_quant_conv):
        nn.init.zeros_(quant.bias)
        quant.weight.copy_(torch.eye(quant.weight.shape[0], device=quant.weight.device)[:, :, None, None])
    _whiten_encoder(vae, images)
    _fit_output(vae, images)


def _whiten_encoder(vae: AutoencoderKL, images: Tensor) -> None:
    features = _features(vae.encoder.conv_out, vae.encoder, images)
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(features.T))
    latents = VAE.latent_channels
    basis = (vectors[:, -latents:] / values[-latents:].clamp(min=1e-8).sqrt()).T
    out = vae.encoder.conv_out
    out.weight.mul_(0.05)
    out.bias.zero_()
    out.weight[:latents, :, 1, 1] += basis
    out.bias[:latents] = -basis @ mean


def _fit_output(vae: AutoencoderKL, images: Tensor) -> None:
    features = _features(vae.decoder.conv_out, lambda x: vae.decode(vae.encode(x)), images)
    rows = torch.cat([features, torch.ones(len(features), 1, device=features.device)], 1).double()
    target = images.permute(0, 2, 3, 1).flatten(0, 2).double()
    ridge = 1e-4 * len(rows) * torch.eye(rows.shape[1], device=rows.device, dtype=torch.float64)
    solution = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ target).float()
    out = vae.decoder.conv_out
    out.weight.mul_(0.05)
    out.weight[:, :, 1, 1] += solution[:-1].T
    out.bias.copy_(solution[-1])
