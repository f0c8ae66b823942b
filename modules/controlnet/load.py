"""ControlNet file or diffusers folder -> ControlNet network for the loaded checkpoint; other families are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from modules.controlnet.layouts import cldm_weights
from modules.core.errors import ModelFileError
from modules.loader.detect import ModelSpec, header_facts
from modules.loader.diffusers_layout import weight_files
from modules.loader.family import context_family, model_family
from modules.loader.fill import empty_weights, fill_network
from modules.loader.state_dict import Weights, open_weights
from modules.models.configs import UNetConfig
from modules.models.controlnet import ControlNet

_STEM = "input_blocks.0.0.weight"
_HINT = "input_hint_block.0.weight"
_SDXL_MARKS = ("label_emb.", "add_embedding.")


def load_controlnet(
    path: Path | str,
    spec: ModelSpec,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    base: Mapping[str, Tensor] | None = None,
) -> ControlNet:
    """`base`: the UNet's weights without LoRA (`ModelPatcher.pristine()`), for control-LoRAs and difference nets."""
    path = Path(path)
    opened = _open(path)
    try:
        return _build(opened, spec, torch.device(device), dtype, base)
    except ModelFileError as error:
        raise ModelFileError(f"{path.name} cannot be used. {error}") from error


def _open(path: Path) -> Weights:
    if not path.is_dir():
        return open_weights(path)
    shards = [open_weights(file) for file in weight_files(path)]
    tensors = {name: tensor for shard in shards for name, tensor in shard.tensors.items()}
    return Weights(tensors, shards[0].metadata, lambda: None)


def _build(
    opened: Weights, spec: ModelSpec, device: torch.device, dtype: torch.dtype, base: Mapping[str, Tensor] | None
) -> ControlNet:
    _refuse_other_family(opened.tensors, spec)
    weights = cldm_weights(opened.tensors, base)
    config = _config(weights, spec.unet, header_facts(opened.metadata))
    with empty_weights():
        network = ControlNet(config, hint_channels=weights[_HINT].shape[1])
    weights = _fitted(weights, network.state_dict(), spec)
    fill_network(network, weights, device, dtype, lambda: None, "ControlNet")
    return network


def _config(weights: Mapping[str, Tensor], unet: UNetConfig, facts: Mapping[str, object]) -> UNetConfig:
    """The UNet's own configuration, since residuals must fit it, with the heads and groups of the file's header."""
    config = replace(unet, in_channels=weights[_STEM].shape[1] if _STEM in weights else unet.in_channels)
    heads, groups = facts.get("unet_heads"), facts.get("unet_groups")
    if isinstance(heads, int):
        config = replace(config, heads=heads)
    return replace(config, groups=groups) if isinstance(groups, int) else config


def _refuse_other_family(state: Mapping[str, Tensor], spec: ModelSpec) -> None:
    theirs = _family(state, spec)
    ours = model_family(spec)
    if theirs is not None and theirs != ours:
        raise ModelFileError(
            f"It was made for {theirs}, this checkpoint is {ours}; choose a ControlNet made for {ours}."
        )


def _family(state: Mapping[str, Tensor], spec: ModelSpec) -> str | None:
    if any(name.startswith(_SDXL_MARKS) for name in (key.removeprefix("control_model.") for key in state)):
        return "SDXL"
    for name, tensor in state.items():
        if name.endswith((".attn2.to_k.weight", ".attn2.to_k.down")) and tensor.ndim >= 2:
            return context_family(tensor.shape[1], spec)
    return None


def _fitted(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Projections saved as matrices become 1x1 convolutions and the reverse; other shapes are of another model."""
    fitted: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        wanted = expected[name].shape if name in expected else tensor.shape
        same_but_for_ones = tuple(tensor.shape[:2]) == tuple(wanted[:2]) and tensor.numel() == wanted.numel()
        if tensor.shape != wanted and not same_but_for_ones:
            raise ModelFileError(
                f"Its {name} has shape {list(tensor.shape)} where this checkpoint ({model_family(spec)}) needs "
                f"{list(wanted)}; choose a ControlNet made for this model."
            )
        fitted[name] = tensor.reshape(wanted)
    return fitted
