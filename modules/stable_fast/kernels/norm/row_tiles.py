"""How many whole rows a program of a row-wise norm takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modules.stable_fast.kernels.choices import ChoiceKey, dtype_key
from modules.stable_fast.kernels.devices import multiprocessors, uses_kernels
from modules.stable_fast.kernels.triton_import import next_power_of_2, triton

# A program keeps whole rows in registers.
MAX_CHANNELS = 8192


class RowTiles(NamedTuple):
    """Rows of the tensor, rows per program, columns rounded up to a power of two, and warps."""

    rows: int
    per_program: int
    block: int
    warps: int

    @property
    def grid(self) -> tuple[int]:
        return (triton.cdiv(self.rows, self.per_program),)


def row_tiles(x: Tensor) -> RowTiles:
    """For x [..., C]: enough rows per program to use its registers, and enough programs to use the GPU."""
    channels = x.shape[-1]
    rows, block = x.numel() // channels, next_power_of_2(channels)
    per_program = max(1, min(4096 // block, triton.cdiv(rows, 2 * multiprocessors(x))))
    per_program = next_power_of_2(per_program)
    return RowTiles(rows, per_program, block, 4 if per_program * block <= 4096 else 8)


def fits_rows(x: Tensor) -> bool:
    return uses_kernels(x) and x.shape[-1] <= MAX_CHANNELS


def rows_key(x: Tensor) -> ChoiceKey:
    return (x.numel() // x.shape[-1], x.shape[-1], dtype_key(x))
