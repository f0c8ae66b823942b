"""Exports the networks as one SD1.x-layout fp16 file, and splits it into parts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from modules.core.files import write_whole
from modules.models.clip import ClipTextModel
from modules.models.configs import TextConfig
from tools.demo_model.training.networks import NATIVE_SIZE, TEXT, UNET, VAE, Networks
from tools.demo_model.world.captions import BOS, EOS, UNKNOWN

LIMIT_BYTES = 40 * 2**20
PART_BYTES = 14 * 2**20
BOS_TOKEN, EOS_TOKEN = 49406, 49407
EMBEDDING = "text_model.embeddings.token_embedding.weight"
DESCRIPTION = (
    "A small world: circles, squares, triangles, stars and hearts, small or large, one to three of them, in ten "
    "colours on plain or coloured backgrounds, at nine positions; ocean, hills, mountains and desert by day, at sunset "
    "and at night, with the sun or moon left, centre or right, with clouds or a sailboat. Other words are ignored. "
    "Native size 128."
)


def widen_text(text: ClipTextModel, vocabulary: list[int], config: TextConfig = TEXT) -> dict[str, Tensor]:
    """Returns the text encoder's weights with the real vocabulary; untrained rows get the trained 'unknown' vector."""
    weights = {key: value.detach().float().cpu() for key, value in text.state_dict().items()}
    compact = weights[EMBEDDING]
    full = compact[UNKNOWN].repeat(config.vocab_size, 1)
    full[torch.tensor(vocabulary)] = compact[EOS + 1 :]
    full[BOS_TOKEN], full[EOS_TOKEN] = compact[BOS], compact[EOS]
    weights[EMBEDDING] = full
    weights["text_model.embeddings.position_ids"] = torch.arange(config.positions)[None]
    return weights


def checkpoint_weights(networks: Networks) -> dict[str, Tensor]:
    parts = {
        "model.diffusion_model.": networks.unet.state_dict(),
        "first_stage_model.": networks.vae.state_dict(),
        "cond_stage_model.transformer.": widen_text(networks.text, networks.captions.vocabulary),
    }
    weights: dict[str, Tensor] = {}
    for prefix, state in parts.items():
        for key, value in state.items():
            value = value.detach().cpu().contiguous()
            weights[prefix + key] = value.half() if value.is_floating_point() else value
    return weights


def header() -> dict[str, str]:
    facts = {
        "unet_heads": UNET.heads,
        "unet_groups": UNET.groups,
        "vae_groups": VAE.groups,
        "clip_heads": TEXT.heads,
        "image_size": NATIVE_SIZE,
        "native_size": NATIVE_SIZE,
        "prediction_type": "epsilon",
        "description": DESCRIPTION,
    }
    return {"lightdiffusion": json.dumps(facts), "format": "pt"}


def export_checkpoint(networks: Networks, path: Path) -> None:
    """Writes `path` atomically; refuses a file over the size limit or with values that are not finite."""
    weights = checkpoint_weights(networks)
    broken = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"{len(broken)} weights are not finite in fp16, first {broken[0]}")
    data = save(weights, metadata=header())
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"the checkpoint has {len(data)} bytes, more than the limit of {LIMIT_BYTES}")
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
