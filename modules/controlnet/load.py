"""Loads a ControlNet file or diffusers folder for the loaded checkpoint; rejects other model families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from modules.controlnet.layouts import cldm_weights
from modules.core.errors import ModelFileError
from modules.loader.detection.facts import header_facts, number_of
from modules.loader.detection.family_names import context_family, model_family
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.detection.unet_config import check_unet
from modules.loader.files.open_file import Weights, same_but_for_ones
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.diffusers import weight_files
from modules.loader.load_weights import empty_weights, fill_network
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
    """Loads a ControlNet; control-LoRAs and difference files need `base`, the UNet's `ModelPatcher.pristine()`."""
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
        network = ControlNet(config, hint_channels=_inputs(weights, _HINT))
    _check_shapes(weights, network.state_dict(), spec)
    fill_network(network, weights, device, dtype, lambda: None, "ControlNet")
    return network


def _config(weights: Mapping[str, Tensor], unet: UNetConfig, facts: Mapping[str, object]) -> UNetConfig:
    """Returns the UNet's configuration, which residuals must match, with heads and groups from the file's header."""
    config = replace(unet, in_channels=_inputs(weights, _STEM) if _STEM in weights else unet.in_channels)
    if unet.heads is not None:
        config = replace(config, heads=number_of(facts, "unet_heads", unet.heads))
    config = replace(config, groups=number_of(facts, "unet_groups", unet.groups))
    check_unet(config)
    return config


def _inputs(weights: Mapping[str, Tensor], name: str) -> int:
    """Returns the number of input channels of a convolution."""
    shape = weights[name].shape
    if len(shape) != 4 or 0 in shape:
        raise ModelFileError(f"Its {name} has shape {list(shape)}, which no ControlNet has.")
    return shape[1]


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


def _check_shapes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Raises ModelFileError if shapes differ from the checkpoint's, so the file belongs to another model."""
    for name, tensor in weights.items():
        wanted = expected[name].shape if name in expected else tensor.shape
        if not same_but_for_ones(tensor.shape, wanted):
            raise ModelFileError(
                f"Its {name} has shape {list(tensor.shape)} where this checkpoint ({model_family(spec)}) needs "
                f"{list(wanted)}; choose a ControlNet made for this model."
            )
