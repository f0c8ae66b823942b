"""Lays out weights in memory so that programs can stack them with a view instead of a copy."""

from __future__ import annotations

import torch
from torch import nn

from modules.stable_fast.runtime.weights import stacked_view

PROJECTIONS = ("to_q", "to_k", "to_v")


@torch.no_grad()
def adjoin_projections(module: nn.Module) -> None:
    """Puts query, key and value weights back to back in memory, or only key and value if query's shape differs.

    The parameters stay the same but get new addresses, so anything captured before has to start over. Applies to
    modules with linear layers `to_q`, `to_k` and `to_v`.
    """
    for attention in module.modules():
        layers = [getattr(attention, name, None) for name in PROJECTIONS]
        weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
        if len(weights) < len(PROJECTIONS):
            continue
        together = weights if weights[0].shape == weights[1].shape else weights[1:]
        if stacked_view([weight.detach() for weight in together]) is not None:
            continue
        with torch.inference_mode(together[0].is_inference()):  # so that they stay writable in the same modes
            stacked = torch.cat(together)
            for weight, part in zip(together, stacked.split([len(weight) for weight in together]), strict=True):
                weight.data = part
