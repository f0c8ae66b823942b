"""How precisely Stable-Fast computes matrix products: the names, and why one may have no effect on a network."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import nn

from modules.stable_fast.kernels.devices import CardClass, card_at, number_of

log = logging.getLogger(__name__)

# off: as precisely as the network itself
Precision = Literal["off", "fp16-accumulate", "fp8", "int8", "fp8-weights", "int8-weights"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

TENSOR_CORES = (7, 5)  # the first capability for which we have kernels
WITHOUT_TENSOR_CORES = "GTX 16"  # cards of that capability that have none
WEIGHTS_ONLY = "-weights"
NUMBERS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
FIRST_FP8, FIRST_INT8 = (8, 9), (8, 0)
# Of a picture's last step, relative to the network's own. About twice what the demo model's differs (0.076 and 0.025),
# whose pictures have a median PSNR of at least 44 and 46 dB, and SDXL's with random weights (0.07 and 0.04).
MOST_ERROR = {"fp8": 0.15, "int8": 0.075}


@dataclass(frozen=True)
class EightBits:
    """`kind`: "fp8" (e4m3) or "int8". With `weights_only`, they are computed with as the network's own type."""

    kind: str
    weights_only: bool

    @property
    def name(self) -> str:
        return self.kind + (WEIGHTS_ONLY if self.weights_only else "")

    @property
    def numbers(self) -> torch.dtype:
        return NUMBERS[self.kind]


def eight_bits(precision: str) -> EightBits | None:
    """What a precision asks for in eight bits; None for the others."""
    kind = precision.removesuffix(WEIGHTS_ONLY)
    return EightBits(kind, weights_only=kind != precision) if kind in ("fp8", "int8") else None


def has_eight_bits(precision: str) -> bool:
    """Whether products or weights are in eight bits."""
    return eight_bits(precision) is not None


def stores_weights(precision: str) -> bool:
    """Whether this is about how weights are stored, and not how products are computed."""
    return precision.endswith(WEIGHTS_ONLY)


def why_no_effect(precision: str, device: torch.device, network: nn.Module) -> str:
    """Why products of this network are computed as they would be without `precision`; "" if they are not."""
    asked = eight_bits(precision)
    if precision == "off":
        return ""
    if asked and asked.weights_only:
        return "" if device.type == "cuda" else "it saves the memory of an NVIDIA GPU"
    if device.type != "cuda" or torch.version.hip is not None:
        return "it needs an NVIDIA GPU"
    name = torch.cuda.get_device_name(device)
    card, dtypes = card_at(number_of(device)), {weight.dtype for weight in network.parameters()}
    if asked:
        if asked.kind == "fp8" and card.capability < FIRST_FP8:
            return f"{name} has no products in fp8: RTX 40, RTX 50, H100 and newer have"
        if asked.kind == "int8" and (card.capability < FIRST_INT8 or card.kind is CardClass.TCGEN05):
            return f"{name} has no fast products in int8: RTX 30, 40 and 50, A100 and H100 have"
        return "" if dtypes & {torch.float16, torch.bfloat16} else "the network computes in float32"
    if card.capability < TENSOR_CORES or WITHOUT_TENSOR_CORES in name:
        return f"{name} has no tensor cores"
    return "" if torch.float16 in dtypes else "the network does not compute in fp16"


class Asked(Protocol):
    """What is read of a configuration."""

    @property
    def precision(self) -> str: ...

    @property
    def emulated(self) -> bool: ...


def eight_bits_in_force(config: Asked, device: torch.device, network: nn.Module) -> tuple[EightBits | None, str]:
    """The eight bits that hold here, and why the precision has no effect if so."""
    asked = eight_bits(config.precision)
    reason = "" if asked and config.emulated else why_no_effect(config.precision, device, network)
    if asked and reason:
        dtype = str(next(network.parameters()).dtype).removeprefix("torch.")
        log.warning("Stable-Fast computes in %s instead of %s: %s.", dtype, asked.name, reason)
    return (None if reason else asked), reason
