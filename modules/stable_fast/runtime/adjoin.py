"""Lays out weights in memory so that programs can stack them with a view instead of a copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modules.stable_fast.runtime.weights import stacked_view

PROJECTIONS = ("to_q", "to_k", "to_v")
EMBEDDING = "emb_layers"


@torch.no_grad()
def adjoin_projections(module: nn.Module) -> None:
    """Puts query, key and value weights back to back in memory, or only key and value if query's shape differs.

    The parameters stay the same but get new addresses, so anything captured before has to start over. Applies to
    modules with linear layers `to_q`, `to_k` and `to_v`. So are those of all residual blocks that project the embedded
    timestep (`emb_layers`).
    """
    for attention in module.modules():
        layers = [getattr(attention, name, None) for name in PROJECTIONS]
        weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
        if len(weights) == len(PROJECTIONS):
            _adjoin(weights if weights[0].shape == weights[1].shape else weights[1:])
    embeddings = [getattr(part, EMBEDDING, None) for part in module.modules()]
    layers = [embedding[-1] for embedding in embeddings if isinstance(embedding, nn.Sequential)]
    _adjoin([layer.weight for layer in layers if isinstance(layer, nn.Linear)])


def _adjoin(weights: Sequence[Tensor]) -> None:
    """Puts these weights back to back, unless they are so already or do not fit."""
    kinds = {(weight.shape[1:], weight.dtype) for weight in weights}
    if len(kinds) != 1 or stacked_view([weight.detach() for weight in weights]) is not None:
        return
    with torch.inference_mode(weights[0].is_inference()):  # so that they stay writable in the same modes
        stacked = torch.cat(list(weights))
        for weight, part in zip(weights, stacked.split([len(weight) for weight in weights]), strict=True):
            weight.data = part
