"""Networks of full size in little memory: every matrix and convolution is a view of one small pool of numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from modules.loader.load_weights import empty_weights, fill_network

POOL = 64_000_000  # the token table of OpenCLIP-G has 63.2 million numbers
STD = 0.02  # about 1 / sqrt(fan-in) of a layer of medium width
STRIDE = 7_919  # the distance between the beginnings of two weights in the pool, so that no two are equal

Network = TypeVar("Network", bound=nn.Module)


@lru_cache(maxsize=1)
def pool() -> Tensor:
    return torch.randn(POOL, generator=torch.Generator().manual_seed(0)).mul_(STD)


def pooled(make: Callable[[], Network]) -> Network:
    """Makes a network whose matrices are views of the pool. Vectors are its own, and those of norms are around 1."""
    with torch.device("meta"):
        network = make()
    network.load_state_dict(
        {name: _view(name, weight, number) for number, (name, weight) in enumerate(network.state_dict().items())},
        assign=True,
    )
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:  # only position numbers are not in the state dict
                setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return network.requires_grad_(requires_grad=False).eval()


def _view(name: str, weight: Tensor, number: int) -> Tensor:
    begin = number * STRIDE % (POOL - weight.numel())
    values = pool()[begin : begin + weight.numel()].view(weight.shape)
    return 1 + values if weight.ndim < 2 and "norm" in name and name.endswith("weight") else values


def filled(make: Callable[[], Network], state: dict[str, Tensor]) -> Network:
    """Makes a network with these weights, without a copy."""
    with empty_weights():
        network = make()
    fill_network(network, state, torch.device("cpu"), torch.float32, lambda: None, "network")
    return network
