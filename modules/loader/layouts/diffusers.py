"""Converts diffusers-layout weights (single networks, single files, folders) to LDM names, using key_maps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.core.typed import Unreadable, parse_json_object
from modules.loader.files.numbered import count_numbered
from modules.loader.files.open_file import Weights
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.key_maps import (
    CONTROLNET_ENDS,
    DIFFUSERS_PARTS,
    OPENCLIP_ENDS,
    OPENCLIP_LAYER,
    UNET_ENDS,
    UNET_RESNET,
    VAE_ATTENTION,
    VAE_PIECES,
)

_MOST_LEVELS = 8
_FOLDERS = {"unet": "unet", "vae": "vae", "text": "text_encoder", "text_2": "text_encoder_2"}


def unet_block_names(attention_levels: Sequence[bool], res_blocks: int) -> dict[str, str]:
    """Maps diffusers module prefixes to LDM ones for every block of a UNet (and of a ControlNet's encoder half)."""
    names = dict(UNET_ENDS)
    levels = len(attention_levels)
    for level, has_attention in enumerate(attention_levels):
        first = 1 + level * (res_blocks + 1)
        for block in range(res_blocks):
            names[f"down_blocks.{level}.resnets.{block}"] = f"input_blocks.{first + block}.0"
            if has_attention:
                names[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{first + block}.1"
        if level < levels - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + res_blocks}.0.op"
    for level, has_attention in enumerate(reversed(attention_levels)):
        first = level * (res_blocks + 1)
        for block in range(res_blocks + 1):
            names[f"up_blocks.{level}.resnets.{block}"] = f"output_blocks.{first + block}.0"
            if has_attention:
                names[f"up_blocks.{level}.attentions.{block}"] = f"output_blocks.{first + block}.1"
        if level < levels - 1:
            names[f"up_blocks.{level}.upsamplers.0.conv"] = (
                f"output_blocks.{first + res_blocks}.{1 + has_attention}.conv"
            )
    return names


def is_diffusers_unet(names: Iterable[str]) -> bool:
    return any(name.startswith("down_blocks.0.resnets.") for name in names)


def is_diffusers_vae(names: Iterable[str]) -> bool:
    return any(name.startswith("encoder.down_blocks.0.") for name in names)


def unet_to_ldm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a diffusers UNet's weights to LDM names; keeps unknown names, so that the loader can report them."""
    blocks = _blocks_of(state)
    return {_unet_name(name, blocks): tensor for name, tensor in state.items()}


def controlnet_to_ldm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a diffusers ControlNet's weights to cldm names (without the `control_model.` prefix)."""
    blocks = _blocks_of(state) | CONTROLNET_ENDS
    for name in state:
        if match := re.match(r"(controlnet_cond_embedding\.blocks|controlnet_down_blocks)\.(\d{1,4})\.", name):
            number = int(match[2])
            hint = match[1].startswith("controlnet_cond")
            blocks[match[0][:-1]] = f"input_hint_block.{2 * number + 2}" if hint else f"zero_convs.{number}.0"
    blocks["controlnet_mid_block"] = "middle_block_out.0"
    return {_unet_name(name, blocks): tensor for name, tensor in state.items()}


def _blocks_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    res_blocks = count_numbered(state, r"down_blocks\.0\.resnets\.(\d+)\.")
    levels = count_numbered(state, r"down_blocks\.(\d+)\.")
    with_attention = {name.split(".")[1] for name in state if re.match(r"down_blocks\.\d+\.attentions\.", name)}
    return unet_block_names([str(level) in with_attention for level in range(levels)], res_blocks)


def _unet_name(name: str, blocks: Mapping[str, str]) -> str:
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        prefix, rest = ".".join(parts[:length]), parts[length:]
        if prefix in blocks:
            if ".resnets." in prefix:
                rest[0] = UNET_RESNET.get(rest[0], rest[0])
            return ".".join([blocks[prefix], *rest])
    return name


def vae_to_ldm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a diffusers autoencoder's weights to LDM names."""
    levels = count_numbered(state, r"encoder\.down_blocks\.(\d+)\.")
    return {_vae_name(name, levels): tensor for name, tensor in state.items()}


def _vae_name(name: str, levels: int) -> str:
    for old, new in VAE_PIECES.items():
        name = name.replace(f"{old}.", f"{new}.")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d{1,4})\.resnets\.", lambda match: f"up.{levels - 1 - int(match[1])}.block.", name)
    name = re.sub(
        r"up_blocks\.(\d{1,4})\.upsamplers\.0\.", lambda match: f"up.{levels - 1 - int(match[1])}.upsample.", name
    )
    head, mark, tail = name.partition(".attn_1.")
    if mark:
        piece, _, kind = tail.rpartition(".")
        name = f"{head}{mark}{VAE_ATTENTION.get(piece, piece)}.{kind}"
    return name


def text_to_openclip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a Hugging Face CLIP's weights to OpenCLIP names; packs query, key and value into one matrix."""
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("text_model.")
        match = re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name)
        if not match:
            is_projection = name == "text_projection.weight"  # OpenCLIP multiplies by it from the right
            converted[OPENCLIP_ENDS.get(name, name)] = tensor.t() if is_projection and tensor.ndim == 2 else tensor
            continue
        layer, piece, kind = match.groups()
        if piece == "self_attn.q_proj":
            packed = [state[_sibling(state, layer, part, kind)] for part in "qkv"]
            if any(weight.shape[1:] != tensor.shape[1:] or not weight.ndim for weight in packed):
                raise ModelFileError(f"{quoted(name)} and the weights beside it differ in shape and cannot be joined.")
            converted[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(packed)
        elif piece not in ("self_attn.k_proj", "self_attn.v_proj"):
            converted[f"transformer.resblocks.{layer}.{OPENCLIP_LAYER.get(piece, piece)}.{kind}"] = tensor
    return converted


def _sibling(state: Mapping[str, Tensor], layer: str, part: str, kind: str) -> str:
    name = f"encoder.layers.{layer}.self_attn.{part}_proj.{kind}"
    full = f"text_model.{name}"
    if full not in state and name not in state:
        raise ModelFileError(f"The text encoder lacks {full}; the file is incomplete.")
    return full if full in state else name


def is_diffusers_folder(path: Path) -> bool:
    return path.is_dir() and (path / "model_index.json").is_file()


def open_folder(path: Path) -> Weights:
    """Reads a diffusers folder as one dict (prefixes `unet.`, `vae.`, `text_encoder.`), with a header from configs."""
    if not is_diffusers_folder(path):
        raise ModelFileError(f"{path.name} is a folder without model_index.json, so it is not a diffusers model.")
    if not (path / "unet").is_dir():
        pipeline = _read_config(path, "model_index.json").get("_class_name", "an unknown pipeline")
        raise ModelFileError(
            f"{path.name} is a diffusers folder of {quoted(pipeline)}; only SD1.x, SD2.x and SDXL are supported."
        )
    tensors: dict[str, Tensor] = {}
    opened: list[Weights] = []
    for part, folder in _FOLDERS.items():
        if part.startswith("text") and not (path / folder).is_dir():
            continue  # only SDXL has a second text encoder, and its refiner has only that one
        for file in weight_files(path / folder):
            weights = open_weights(file)
            opened.append(weights)
            tensors.update({DIFFUSERS_PARTS[part] + name: tensor for name, tensor in weights.tensors.items()})

    def drop_pages() -> None:
        for weights in opened:
            weights.drop_pages()

    return Weights(tensors, {"lightdiffusion": json.dumps(_folder_facts(path))}, drop_pages)


def weight_files(folder: Path) -> list[Path]:
    """Finds the weight file (or shards) of a component; prefers full precision safetensors, then fp16, then pickles."""
    patterns = (
        "*model.safetensors",
        "*model-?????-of-?????.safetensors",
        "*model.fp16.safetensors",
        "*model.bin",
        "*model.fp16.bin",
    )
    for pattern in patterns:
        if files := sorted(folder.glob(pattern)):
            return files
    raise ModelFileError(f"The diffusers folder has no weights in {folder}; download that part again.")


def text_encoder_metadata(folder: Path) -> dict[str, str]:
    """Converts the config of a text encoder's folder to our header text."""
    return {"lightdiffusion": json.dumps(_text_facts(folder))}


def vae_metadata(folder: Path) -> dict[str, str]:
    """Converts the config of an autoencoder's folder to our header text."""
    return {"lightdiffusion": json.dumps(_vae_facts(_read_config(folder)))}


def _vae_facts(vae: Mapping[str, Any]) -> dict[str, object]:
    facts = {
        "vae_groups": vae.get("norm_num_groups"),
        "scale_factor": vae.get("scaling_factor"),
        "latent_mean": vae.get("latents_mean"),
        "latent_std": vae.get("latents_std"),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _text_facts(folder: Path, encoder: str = "clip") -> dict[str, object]:
    text = _read_config(folder)
    facts = {f"{encoder}_heads": text.get("num_attention_heads"), f"{encoder}_activation": text.get("hidden_act")}
    return {name: fact for name, fact in facts.items() if fact is not None}


def _folder_facts(path: Path) -> dict[str, object]:
    """Collects facts not evident from shapes from the configs, under the names used in our header."""
    unet = _read_config(path / "unet")
    vae = _read_config(path / "vae")
    facts: dict[str, object] = {
        "unet_groups": unet.get("norm_num_groups"),
        **_scheduler_facts(_read_config(path / "scheduler", "scheduler_config.json")),
    }
    # diffusers calls the number of heads "attention_head_dim"; SD2 and SDXL have one value per level.
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim")
    if isinstance(heads, list):
        facts["unet_head_dim"] = _first(unet.get("block_out_channels")) // _first(heads)
    else:
        facts["unet_heads"] = heads
    blocks = vae.get("block_out_channels")
    if isinstance(size := unet.get("sample_size"), int) and isinstance(blocks, list):
        facts["native_size"] = size * 2 ** (min(len(blocks), _MOST_LEVELS) - 1)
    facts = {name: fact for name, fact in facts.items() if fact is not None}
    texts = _text_facts(path / "text_encoder") | _text_facts(path / "text_encoder_2", "clip_g")
    return facts | _vae_facts(vae) | texts


def _scheduler_facts(scheduler: Mapping[str, Any]) -> Mapping[str, object]:
    """Tells the prediction and the noise levels. EDM and flow are known by the name of the scheduler's class."""
    kind, prediction = str(scheduler.get("_class_name")), scheduler.get("prediction_type")
    if kind.startswith("EDM"):
        prediction = "edm_v" if prediction == "v_prediction" else "edm"
        sigmas = {name: scheduler.get(name) for name in ("sigma_min", "sigma_max")}
        return {"prediction_type": prediction, **sigmas}
    return {
        "prediction_type": "flow" if "FlowMatch" in kind else prediction,
        "zero_terminal_snr": scheduler.get("rescale_betas_zero_snr"),
    }


def _first(value: object) -> int:
    """Returns the first number of a list with one number per level."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, bool) or not isinstance(first, int) or first < 1:
        raise ModelFileError(f"The UNet's config.json names {quoted(value)} where a list of numbers is needed.")
    return first


def _read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        return {}
    try:
        return parse_json_object(file.read_bytes())
    except (OSError, Unreadable) as error:
        raise ModelFileError(f"{file} cannot be used ({error}); download it again.") from error
