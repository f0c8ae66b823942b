"""Builds the XL demo's networks: SDXL in small, with the first demo's autoencoder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.loader.checkpoint import open_vae
from modules.models.clip import TextEncoders
from modules.models.configs import TextConfig, UNetConfig
from modules.models.layers import timestep_embedding
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL
from modules.text.tokenizer import Tokenizer
from tools.demo_model.training.eight_bits import is_matrix
from tools.demo_model.training.networks import VAE, Networks, end_marks, initialise_text, initialise_unet
from tools.demo_model.world.captions import CONTEXT, UNKNOWN, Captions

FIRST_DEMO = Path(__file__).parents[4] / "models" / "checkpoints" / "demo.safetensors"
CLIP_L = TextConfig(width=32, layers=4, heads=2, mlp_width=128, skip=1, final_norm=False)
CLIP_G = TextConfig(
    name="clip_g",
    layout="openclip",
    width=48,
    layers=4,
    heads=2,
    mlp_width=192,
    activation="gelu",
    skip=1,
    pad_token=0,
    final_norm=False,
    projection=48,
)
SIZES, SIZE_WIDTH = 6, 32  # how many sizes the vector tells, and how many features each of them has
UNET = UNetConfig(
    channels=(64, 64, 96),
    depths=(0, 1, 2),
    middle_depth=2,
    context_dim=CLIP_L.width + CLIP_G.width,
    vector_dim=CLIP_G.width + SIZES * SIZE_WIDTH,
    heads=None,
    head_dim=32,
    groups=16,
    linear_projection=True,
)


@dataclass
class XLNetworks(Networks):
    """The XL demo: two text encoders, and a UNet that is told the pooled text and six sizes."""

    text: TextEncoders

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both encoders' states before their last layers [B, 77, W], and CLIP-G's pooled output [B, S]."""
        first, second = self.text[CLIP_L.name], self.text[CLIP_G.name]
        ends = end_marks(ids)
        padded = pad_as_clip_g(ids, ends)
        states, pooled = second(second.embed_tokens(padded), skip=CLIP_G.skip, ends=ends)
        return torch.cat([first(first.embed_tokens(ids), skip=CLIP_L.skip), states], dim=2), pooled

    def condition(self, ids: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        context, pooled = self.read(ids)
        return {"context": context, "vector": torch.cat([pooled, size_features(sizes).to(pooled.dtype)], dim=1)}

    def coarse(self) -> list[nn.Parameter]:
        return [weight for name, weight in self.unet.named_parameters() if is_bulky(name) and weight.ndim > 1]


def is_bulky(name: str) -> bool:
    """Tells a weight of the UNet's middle. Its ends stay exact: they are small, and every error there is seen."""
    return is_matrix(name) and not name.startswith(("input_blocks.0.", "out.", "time_embed.", "label_emb."))


def pad_as_clip_g(ids: Tensor, ends: Tensor) -> Tensor:
    """Puts CLIP-G's pad token after the first EOS. It is "!", which no caption contains, so it is an unknown word."""
    places = torch.arange(CONTEXT, device=ids.device)
    return ids.masked_fill(places > ends[:, None], UNKNOWN)


def size_features(sizes: Tensor) -> Tensor:
    """Returns the Fourier features [B, 6 * SIZE_WIDTH] of sizes [B, 6] in SDXL's order."""
    return timestep_embedding(sizes.flatten(), SIZE_WIDTH).unflatten(0, sizes.shape).flatten(1)


def build_xl_networks(device: torch.device, seed: int, vae_file: Path = FIRST_DEMO) -> XLNetworks:
    torch.manual_seed(seed)
    captions = Captions(device, Tokenizer().encode)
    text = TextEncoders(dataclasses.replace(config, vocab_size=captions.size) for config in (CLIP_L, CLIP_G))
    vae = AutoencoderKL(VAE)
    vae.load_state_dict({name: weight.float() for name, weight in open_vae(vae_file).tensors.items()})
    networks = XLNetworks(vae.requires_grad_(requires_grad=False), text, UNet(UNET), captions, device)
    embeddings = text[CLIP_L.name].text_model.embeddings
    initialise_text(embeddings.token_embedding.weight, embeddings.position_embedding.weight)
    initialise_text(text[CLIP_G.name].token_embedding.weight, text[CLIP_G.name].positional_embedding)
    initialise_unet(networks.unet)
    for network in (vae, text, networks.unet):
        network.to(device)
    return networks
