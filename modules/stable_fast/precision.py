"""How precisely Stable-Fast computes matrix products: the names, and why one may have no effect on a network."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from modules.stable_fast.kernels.devices import card_at, number_of

Precision = Literal["off", "fp16-accumulate"]  # off: as precisely as the network itself
PRECISIONS: tuple[str, ...] = get_args(Precision)

TENSOR_CORES = (7, 5)  # the first capability for which we have kernels
WITHOUT_TENSOR_CORES = "GTX 16"  # cards of that capability that have none


def why_no_effect(precision: str, device: torch.device, network: nn.Module) -> str:
    """Why products of this network are computed as they would be without `precision`; "" if they are not."""
    if precision == "off":
        return ""
    if device.type != "cuda" or torch.version.hip is not None:
        return "it needs an NVIDIA GPU"
    name = torch.cuda.get_device_name(device)
    if card_at(number_of(device)).capability < TENSOR_CORES or WITHOUT_TENSOR_CORES in name:
        return f"{name} has no tensor cores"
    dtypes = {weight.dtype for weight in network.parameters()}
    return "" if torch.float16 in dtypes else "the network does not compute in fp16"
