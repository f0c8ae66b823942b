"""Brings a network that lives in the computer's memory to the GPU for as long as it works there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from modules.core.device import release_memory
from modules.loader.load_weights import layout_on


def is_away(network: nn.Module, device: torch.device) -> bool:
    """Whether the network lives elsewhere, and comes to `device` only to work."""
    return next(network.parameters()).device.type != device.type


@contextmanager
def visiting(network: nn.Module, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Puts copies of an absent network's weights on `device` for the block. Yields its weights at home by name.

    Afterwards it has the very weights from before, so that nothing needs to be copied back. Only weights that got
    another dtype meanwhile go home as they are. A network that lives on `device` stays, and nothing is yielded.
    """
    if not is_away(network, device):
        yield {}
        return
    weights = dict(chain(network.named_parameters(), network.named_buffers()))
    homes = {name: weight.data for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            weight.data = homes[name].to(device, copy=True, memory_format=layout_on(homes[name], device))
        yield homes
    finally:
        for name, weight in weights.items():
            home = homes[name]
            weight.data = home if weight.dtype == home.dtype else weight.data.to(home.device)
        release_memory(device)
