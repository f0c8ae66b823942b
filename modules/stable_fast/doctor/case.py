"""A call of an op for the self-test, and its operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.kernels.memory_layout import to_channels_last


@dataclass(frozen=True)
class Case:
    """One call of one op. `reference` takes the same arguments. Without a tolerance, the dtype's is meant."""

    op: str
    reference: Callable[..., Any]
    args: tuple[Any, ...]
    tolerance: float | None = None


class Maker:
    """Random operands, the same on every device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._device, self.dtype = device, dtype

    def rows(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=self._generator)).to(self._device, self.dtype)

    def image(self, *shape: int, scale: float = 1.0) -> Tensor:
        return to_channels_last(self.rows(*shape, scale=scale))
