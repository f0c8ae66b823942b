"""Loads a T2I-Adapter in TencentARC's layout or diffusers', for SD1.x, SD2.x and SDXL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.files.numbered import count_numbered
from modules.loader.load_weights import empty_weights, fill_network
from modules.models.configs import UNetConfig
from modules.models.t2i_adapter import AdapterConfig, T2IAdapter

_PREFIX = "adapter."
_RES_BLOCKS = 2  # per level, in TencentARC's flat numbering of full adapters
_BLOCK = r"body\.(\d{1,3})\."


def is_adapter(names: Iterable[str]) -> bool:
    return any(re.match(rf"(adapter\.)?{_BLOCK}", name) for name in names)


def build_adapter(
    state: Mapping[str, Tensor], unet: UNetConfig, device: torch.device, dtype: torch.dtype
) -> T2IAdapter:
    """Raises ModelFileError if the weights are incomplete, or its levels are not this UNet's."""
    weights = diffusers_weights(state)
    config = adapter_config(weights)
    levels = (*unet.channels, *unet.channels[-1:])[: len(config.channels)]
    if config.channels != levels:
        raise ModelFileError(
            f"It is a T2I-Adapter for a UNet with levels of {list(config.channels)} channels, and this checkpoint's "
            f"are {list(unet.channels)}; choose one made for this model."
        )
    with empty_weights():
        network = T2IAdapter(config)
    fill_network(network, weights, device, dtype, lambda: None, "T2I-Adapter")
    return network


def diffusers_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames TencentARC's weights to diffusers' names, without a prefix; keeps names that are diffusers' already."""
    plain = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    if any(re.match(rf"{_BLOCK}block1\.", name) for name in plain):
        return {re.sub(rf"{_BLOCK}(\w+)\.", _numbered_by_level, name): tensor for name, tensor in plain.items()}
    return {re.sub(rf"{_BLOCK}body\.", r"body.\1.resnets.", name): tensor for name, tensor in plain.items()}


def _numbered_by_level(match: re.Match[str]) -> str:
    level, block = divmod(int(match[1]), _RES_BLOCKS)
    return f"body.{level}.in_conv." if match[2] == "in_conv" else f"body.{level}.resnets.{block}.{match[2]}."


def adapter_config(weights: Mapping[str, Tensor]) -> AdapterConfig:
    """Reads the shape of an adapter with diffusers' names. Only SDXL's cut the hint into squares of 16 pixels."""
    light = "body.0.out_conv.weight" in weights
    levels = count_numbered(weights, _BLOCK)
    inner = [_shape(weights, f"body.{level}.resnets.0.block1.weight")[0] for level in range(levels)]
    outer = [_shape(weights, f"body.{level}.out_conv.weight")[0] for level in range(levels)] if light else inner
    cut = _shape(weights, "body.0.in_conv.weight" if light else "conv_in.weight")[1]
    square = 16 if cut in (256, 768) else 8
    if cut not in (square**2, 3 * square**2):
        raise ModelFileError(f"Its first layer takes {cut} channels, which no T2I-Adapter does.")
    return AdapterConfig(
        channels=tuple(outer),
        halved=tuple(level == 2 if square == 16 else level > 0 for level in range(levels)),
        hint_channels=cut // square**2,
        square=square,
        res_blocks=count_numbered(weights, r"body\.0\.resnets\.(\d{1,3})\."),
        inner=tuple(inner) if light else None,
    )


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Returns the shape of a required convolution."""
    shape = tuple(weights[name].shape) if name in weights else ()
    if len(shape) != 4 or 0 in shape:
        raise ModelFileError(f"It is a T2I-Adapter whose {name} is {'broken' if shape else 'missing'}.")
    return shape
