"""Loads a ControlNet or T2I-Adapter (file or diffusers folder) for the loaded checkpoint; rejects other families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from modules.controlnet.layouts import cldm_weights
from modules.controlnet.load_adapter import build_adapter, is_adapter
from modules.core.errors import ModelFileError
from modules.loader.detection.facts import header_facts, number_of
from modules.loader.detection.family_names import context_family, model_family
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.detection.shapes import shapes_of
from modules.loader.detection.unet_config import check_unet, transformer_depth
from modules.loader.files.numbered import count_numbered
from modules.loader.files.open_file import Weights, same_but_for_ones
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.diffusers import weight_files
from modules.loader.load_weights import empty_weights, fill_network
from modules.models.configs import UNetConfig
from modules.models.controlnet import ControlNet
from modules.models.t2i_adapter import T2IAdapter
from modules.models.union_controlnet import UnionConfig, UnionControlNet

_STEM = "input_blocks.0.0.weight"
_HINT = "input_hint_block.0.weight"
_COLOURS = 3
# What the union ControlNet adds: a vector and a time embedding for each kind of picture.
_KINDS = "task_embedding"
_KIND_TIME = "control_add_embedding.linear_1.weight"
_SDXL_MARKS = ("label_emb.", "add_embedding.")


def load_controlnet(
    path: Path | str,
    spec: ModelSpec,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    base: Mapping[str, Tensor] | None = None,
) -> ControlNet | T2IAdapter:
    """Loads a ControlNet or T2I-Adapter.

    Control-LoRAs and difference files need `base`, the UNet's `ModelPatcher.pristine()`.
    """
    path = Path(path)
    opened = _open(path)
    try:
        if is_adapter(opened.tensors):
            return build_adapter(opened.tensors, spec.unet, torch.device(device), dtype)
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
        network = _empty(config, weights)
    _check_shapes(weights, network.state_dict(), spec)
    fill_network(network, weights, device, dtype, lambda: None, "ControlNet")
    return network


def _config(weights: Mapping[str, Tensor], unet: UNetConfig, facts: Mapping[str, object]) -> UNetConfig:
    """Returns the UNet's configuration, which residuals must match, with the ControlNet's own depths.

    Heads and groups are those of the file's header.
    """
    shapes = shapes_of(weights)
    first_blocks = range(1, len(unet.channels) * (unet.res_blocks + 1), unet.res_blocks + 1)
    config = replace(
        unet,
        in_channels=_inputs(weights, _STEM) if _STEM in weights else unet.in_channels,
        depths=tuple(transformer_depth(shapes, f"input_blocks.{block}.1") for block in first_blocks),
        middle_depth=transformer_depth(shapes, "middle_block.1") or None,
    )
    if unet.heads is not None:
        config = replace(config, heads=number_of(facts, "unet_heads", unet.heads))
    config = replace(config, groups=number_of(facts, "unet_groups", unet.groups))
    check_unet(config)
    return config


def _empty(config: UNetConfig, weights: Mapping[str, Tensor]) -> ControlNet:
    hint_channels = _inputs(weights, _HINT)
    if hint_channels != _COLOURS:
        raise ModelFileError(f"It reads pictures of {hint_channels} channels, and control pictures have {_COLOURS}.")
    if _KINDS not in weights:
        return ControlNet(config, hint_channels)
    shapes = {name: tuple(weights[name].shape) for name in (_KINDS, _KIND_TIME) if name in weights}
    if [len(shape) for shape in shapes.values()] != [2, 2] or 0 in shapes[_KINDS]:
        raise ModelFileError(f"It is a union ControlNet, and its {_KINDS} or {_KIND_TIME} is missing or broken.")
    kinds = shapes[_KINDS][0]
    time_width, rest = divmod(shapes[_KIND_TIME][1], kinds)
    if not time_width or time_width % 2 or rest:
        raise ModelFileError(f"Its {_KIND_TIME} takes {shapes[_KIND_TIME][1]} values, which do not fit {kinds} kinds.")
    union = UnionConfig(
        kinds=kinds,
        time_width=time_width,
        layers=count_numbered(weights, r"transformer_layes\.(\d{1,3})\."),
    )
    return UnionControlNet(config, union, hint_channels)


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
    is_sdxl = any(name.removeprefix("control_model.").startswith(_SDXL_MARKS) for name in state)
    if is_sdxl and spec.unet.vector_dim is None:
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
