"""8-bit operands for the tests, the kernels to give them to, and how near a result must be to the expected one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import card_at, serves
from modules.stable_fast.kernels.eight_bits.quantize_rows import quantize_rows_reference
from modules.stable_fast.kernels.linear.matmul import Tile
from modules.stable_fast.kernels.linear.tma_tiles import TmaMatmulTile
from modules.stable_fast.kernels.scaled.kinds import LARGEST
from modules.stable_fast.kernels.triton_import import INTERPRETED
from tests.stable_fast.kernels.kernel_device import Maker

MMA = (Tile(32, 32, 32, 4, 2),)
TMA = (TmaMatmulTile(64, 32, 0, 32, 4, 2, 1), TmaMatmulTile(64, 32, 16, 32, 4, 2, 1))


def _served(kind: torch.dtype) -> bool:
    """Whether the GPU that is there multiplies this kind."""
    if INTERPRETED or not torch.cuda.is_available():
        return True  # the tests that need a GPU are deselected
    return serves(card_at(torch.cuda.current_device()), kind)


def _is_hopper() -> bool:
    return INTERPRETED or not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] == 9


of_kinds = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(not _served(kind), reason=f"this GPU does not multiply {kind}"))
        for kind in LARGEST
    ],
    ids=lambda kind: str(kind).removeprefix("torch."),
)


def on_kernels(kernels: Mapping[Any, Callable[..., Any]]) -> pytest.MarkDecorator:
    """One test for each tile and the launcher it belongs to."""
    skip = pytest.mark.skipif(not _is_hopper(), reason="needs a Hopper GPU")
    return pytest.mark.parametrize(
        "kernel",
        [pytest.param(kernel, marks=[] if isinstance(tile, Tile) else skip, id=tile.name)
         for tile, kernel in kernels.items()],
    )  # fmt: skip


def eight(make: Maker, kind: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    """Rows of random numbers, one of them zeros, one with an outlier, in 8 bits, and their scales."""
    x = make.rows(*shape)
    flat = x.view(-1, shape[-1])
    flat[len(flat) // 2] = 0.0
    flat[-1, -1] = 100.0
    return quantize_rows_reference(x, kind)


def assert_same(result: Tensor, expected: Tensor, *, share: float, slack: float = 0.0) -> None:
    """Both are of one kind, and a share of them (or one) may differ by one step, where a number lies between two.

    The numbers before rounding may differ by `slack`, which near zero is several steps.
    """
    assert result.dtype == expected.dtype and result.shape == expected.shape
    wide, expected_wide = result.float(), expected.float()
    spacing = 1.0 if result.dtype == torch.int8 else (expected_wide.abs() / 8).clamp_min(2.0**-9)
    difference = ((wide - expected_wide).abs() - slack).clamp_min(0.0) / spacing
    assert float(difference.max()) <= 1.01, f"differs by {float(difference.max()):.1f} steps"
    assert int((difference > 0).sum()) <= max(1, share * difference.numel())
