"""Exports the first demo as one file in SD1.x's layout, its tokens in 8 bits, and splits files into parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from modules.core.files import write_whole
from modules.models.configs import TextConfig
from tools.demo_model.training.eight_bits import in_eight_bits, is_table
from tools.demo_model.training.networks import NATIVE_SIZE, TEXT, UNET, VAE, Networks
from tools.demo_model.world.captions import BOS, EOS, UNKNOWN

LIMIT_BYTES = 34 * 2**20
PART_BYTES = 14 * 2**20
BOS_TOKEN, EOS_TOKEN = 49406, 49407
PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text": "cond_stage_model.transformer."}
CLIP_TABLE = "text_model.embeddings.token_embedding.weight"
DESCRIPTION = (
    "A small world: circles, squares, triangles, stars and hearts, small or large, one to three of them, in ten "
    "colours on plain or coloured backgrounds, at nine positions; ocean, hills, mountains and desert by day, at sunset "
    "and at night, with the sun or moon left, centre or right, with clouds or a sailboat. Other words are ignored. "
    "Native size 128."
)


def widen_table(weights: Mapping[str, Tensor], table: str, vocabulary: list[int]) -> dict[str, Tensor]:
    """Returns a text encoder's weights with the real vocabulary; untrained rows get the trained 'unknown' vector."""
    compact = weights[table].detach().float().cpu()
    full = compact[UNKNOWN].repeat(TEXT.vocab_size, 1)
    full[torch.tensor(vocabulary)] = compact[EOS + 1 :]
    full[BOS_TOKEN], full[EOS_TOKEN] = compact[BOS], compact[EOS]
    return {**weights, table: full}


def position_ids(config: TextConfig) -> dict[str, Tensor]:
    """Returns the counter that CLIP's files contain."""
    return {"text_model.embeddings.position_ids": torch.arange(config.positions)[None]}


def half_precision(parts: Mapping[str, Mapping[str, Tensor]], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Joins the networks' weights under their prefixes, as fp16 on the CPU."""
    weights: dict[str, Tensor] = {}
    for part, state in parts.items():
        for key, value in state.items():
            value = value.detach().cpu().contiguous()
            weights[prefixes[part] + key] = value.half() if value.is_floating_point() else value
    return weights


def checkpoint_weights(networks: Networks) -> dict[str, Tensor]:
    text = widen_table(networks.text.state_dict(), CLIP_TABLE, networks.captions.vocabulary) | position_ids(TEXT)
    parts = {"unet": networks.unet.state_dict(), "vae": networks.vae.state_dict(), "text": text}
    return in_eight_bits(half_precision(parts, PREFIXES), is_table)


def checkpoint_facts() -> dict[str, object]:
    return {
        "unet_heads": UNET.heads,
        "unet_groups": UNET.groups,
        "vae_groups": VAE.groups,
        "clip_heads": TEXT.heads,
        "image_size": NATIVE_SIZE,
        "native_size": NATIVE_SIZE,
        "prediction_type": "epsilon",
        "description": DESCRIPTION,
    }


def header(facts: Mapping[str, object]) -> dict[str, str]:
    return {"lightdiffusion": json.dumps(facts), "format": "pt"}


def export_checkpoint(networks: Networks, path: Path) -> None:
    """Writes `path` atomically; refuses a file over the size limit or with values that are not finite."""
    write_checkpoint(checkpoint_weights(networks), checkpoint_facts(), path, LIMIT_BYTES)


def write_checkpoint(weights: dict[str, Tensor], facts: Mapping[str, object], path: Path, limit: int) -> None:
    """Writes `path` atomically. Raises ValueError for over `limit` bytes or for values that are not finite."""
    broken = [key for key, value in weights.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if broken:
        raise ValueError(f"{len(broken)} weights are not finite in fp16, first {broken[0]}")
    data = save(weights, metadata=header(facts))
    if len(data) > limit:
        raise ValueError(f"the checkpoint has {len(data)} bytes, more than the limit of {limit}")
    write_whole(path, data)


def split_file(path: Path, folder: Path) -> list[Path]:
    """Splits `path` into parts in `folder` that are small enough to transfer; `cat NAME.part*` joins them."""
    folder.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes()
    parts = []
    for index, start in enumerate(range(0, len(data), PART_BYTES)):
        part = folder / f"{path.name}.part{index}"
        part.write_bytes(data[start : start + PART_BYTES])
        parts.append(part)
    return parts
