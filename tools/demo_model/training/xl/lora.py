"""Trains a style LoRA for the XL demo: its UNet and both of its text encoders, under kohya's names for SDXL."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from modules.loader.checkpoint import load_checkpoint
from modules.text.tokenizer import Tokenizer
from tools.demo_model.training.diffusion import NoiseLoss, conditioned_loss, stratified_timesteps
from tools.demo_model.training.export import BOS_TOKEN, EOS_TOKEN
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.lora_stage import LowRank, insert_low_rank, train_wrappers, transformer_layers
from tools.demo_model.training.networks import batch_size, working_dtype
from tools.demo_model.training.pools import Pool
from tools.demo_model.training.teacher import UNTRAINED_TOKEN
from tools.demo_model.training.xl.networks import CLIP_G, CLIP_L, XLNetworks
from tools.demo_model.world.captions import Captions

# kohya names CLIP-G's layers as Hugging Face does
_OPENCLIP_NAMES = {
    "transformer.resblocks.": "text_model.encoder.layers.",
    ".attn.": ".self_attn.",
    ".c_fc": ".fc1",
    ".c_proj": ".fc2",
}


def load_xl_networks(path: Path, device: torch.device) -> XLNetworks:
    """Reads the exported file with the app's loader, and keeps the vocabulary that captions use."""
    model = load_checkpoint(path, device=device, dtype=torch.float32)
    captions = Captions(device, Tokenizer().encode)
    networks = XLNetworks(model.vae, model.text.module, model.unet.module, captions, device)  # type: ignore[arg-type]
    known = torch.tensor([UNTRAINED_TOKEN, BOS_TOKEN, EOS_TOKEN, *captions.vocabulary], device=device)
    text = networks.text
    for table in (text[CLIP_L.name].text_model.embeddings.token_embedding, text[CLIP_G.name].token_embedding):
        table.weight = nn.Parameter(table.weight[known], requires_grad=False)
    return networks


def kohya_text_name(name: str) -> str:
    """Maps `clip_g.transformer.resblocks.1.mlp.c_fc` to kohya's `lora_te2_text_model_encoder_layers_1_mlp_fc1`."""
    encoder, _, layer = name.partition(".")
    for ours, theirs in _OPENCLIP_NAMES.items():
        layer = layer.replace(ours, theirs)
    number = 1 if encoder == CLIP_L.name else 2
    return f"lora_te{number}_{layer.replace('.', '_')}"


def wrap_networks(networks: XLNetworks) -> dict[str, LowRank]:
    """Inserts low-rank layers into the UNet's transformers and both text encoders; returns them by kohya's names."""
    layers = [name for name, layer in networks.text.named_modules() if isinstance(layer, nn.Linear)]
    in_unet = insert_low_rank(networks.unet, transformer_layers(networks.unet))
    in_text = insert_low_rank(networks.text, layers)
    named = {f"lora_unet_{name.replace('.', '_')}": wrapped for name, wrapped in in_unet.items()}
    return named | {kohya_text_name(name): wrapped for name, wrapped in in_text.items()}


def train_xl_lora(networks: XLNetworks, pool: Pool, budget: Budget, state: StateFile, path: Path) -> None:
    """Trains the LoRA; `pool` contains latents of pictures already redrawn in the style."""
    device, dtype = networks.device, working_dtype(networks.device)
    networks.text.to(dtype)
    networks.unet.to(dtype=dtype, memory_format=torch.channels_last)
    noise_loss, count = NoiseLoss(device), batch_size(device, 256)

    def loss_of(*inputs: Tensor) -> Tensor:
        return conditioned_loss(networks, noise_loss, *inputs)

    def draw() -> tuple[Tensor, ...]:
        latents, facts, sizes = pool.draw(count)
        ids = networks.captions.tokens(facts, drop=0.1)
        return latents, ids, sizes, stratified_timesteps(count, device)

    train_wrappers(wrap_networks(networks), loss_of, draw, budget, state, path)
