"""LoRA layers of PEFT as weights: one layer with `base + strength * up @ down`, in place of three layers.

So the sum belongs to the weights stage, and other strengths, adapters that are switched on or off, and merged adapters
are new weights, not a new trace. PEFT's layers are known by what they look like, so that PEFT need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

# What a layer of PEFT keeps about its adapters, apart from their weights.
STATE = ("scaling", "merged_adapters", "_active_adapter", "_disable_adapters")
PREFIX = "strength_"  # of the names of strengths among a layer's weights


def has_adapters(part: nn.Module) -> bool:
    """Whether a module is a layer of PEFT, of any method."""
    return "merged_adapters" in vars(part)


def is_lora(part: nn.Module) -> bool:
    """Whether a module is a plain LoRA layer around a linear layer or a convolution: without DoRA, bias or groups."""
    if not has_adapters(part) or not type(part).__module__.startswith("peft.tuners.lora."):
        return False
    layer: Any = part
    base = getattr(part, "base_layer", None)
    is_plain = type(base) is nn.Linear or (type(base) is nn.Conv2d and base.groups == 1)
    is_variant = bool(layer.lora_variant) or any(layer.lora_bias.values())
    return is_plain and not is_variant and layer.lora_A.keys() == layer.lora_B.keys()


def state_of(part: nn.Module) -> tuple[str, ...]:
    """What decides what the adapters of a layer of PEFT add, in a form that can be compared."""
    return tuple(repr(vars(part).get(name)) for name in STATE)


def strength(part: Any, name: str) -> float:
    """The strength of one of a LoRA layer's adapters: 0 if it is inactive or off, or the base holds it already."""
    adapter = name.removeprefix(PREFIX)
    is_idle = part.disable_adapters or part.merged or adapter not in part.active_adapters
    return 0.0 if is_idle else float(part.scaling[adapter])


def strengths_of(part: Any) -> dict[str, float]:
    """All strengths of a LoRA layer, by their names among its weights."""
    return {name: strength(part, name) for name in (PREFIX + adapter for adapter in part.lora_A)}


def merge_adapters(twin: nn.Module, mode: FakeTensorMode) -> None:
    """Lets each LoRA layer of a copy that will be traced compute with one weight. Its strengths become buffers.

    The copy keeps PEFT's layers, since a network may scale them while it runs. They are scaled from 1 then.
    """
    layers: list[Any] = [part for part in twin.modules() if is_lora(part)]
    for layer in layers:
        for adapter in layer.lora_A:
            with mode:
                layer.register_buffer(PREFIX + adapter, torch.ones((), device=layer.base_layer.weight.device))
            layer.scaling[adapter] = 1.0
        layer.forward = merged_forward(layer)


def merged_forward(layer: Any) -> Callable[[Tensor], Tensor]:
    """x -> the layer's result, by one weight that holds all of its adapters, summed in fp32."""

    def forward(x: Tensor) -> Tensor:
        base = layer.base_layer
        weight = base.weight.float()
        for adapter, down in layer.lora_A.items():
            delta = layer.lora_B[adapter].weight.float().flatten(1) @ down.weight.float().flatten(1)
            scale = getattr(layer, PREFIX + adapter) * layer.scaling[adapter]
            weight = weight + scale * delta.reshape(base.weight.shape)
        weight = weight.to(base.weight.dtype)
        if isinstance(base, nn.Linear):
            return F.linear(x, weight, base.bias)
        return base._conv_forward(x, weight, base.bias)

    return forward
