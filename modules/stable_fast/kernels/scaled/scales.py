"""The scales of a product of 8-bit numbers, applied to its sums before the epilogue, and those of a result."""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modules.stable_fast.kernels.memory_layout import empty_channels_last
from modules.stable_fast.kernels.triton_import import jit, tl


class Scales(NamedTuple):
    """In fp32: those of the rows, or one for all of them, and those of the columns. The result is of `dtype`.

    If `dtype` is an 8-bit kind, `result` is the known scale of the result.
    """

    rows: Tensor
    columns: Tensor
    dtype: torch.dtype
    result: Tensor | None = None

    @property
    def stride(self) -> int:
        """From the scale of a row to the next one's."""
        return 0 if self.rows.numel() == 1 else 1

    def check(self, rows: int, columns: int) -> None:
        assert self.rows.is_contiguous() and self.rows.numel() in (1, rows), f"scales for {rows} rows"
        assert self.columns.is_contiguous() and self.columns.numel() == columns, f"scales for {columns} columns"
        assert {self.rows.dtype, self.columns.dtype} == {torch.float32}
        assert (self.result is None) == (self.dtype.itemsize > 1)


def scale_pointers(scales: Scales | None, stand_in: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three operands of a kernel: the scales of rows, columns and result, or `stand_in` for what is absent."""
    if scales is None:
        return stand_in, stand_in, stand_in
    return scales.rows, scales.columns, stand_in if scales.result is None else scales.result


class Eight(NamedTuple):
    """Asks for a result of this kind of 8-bit numbers, with a known scale [1] in fp32."""

    scale: Tensor
    kind: torch.dtype


def image_for(a: Tensor, channels: int, eight: Eight | None) -> tuple[Tensor, Tensor, dict[str, bool]]:
    """The empty result of a norm of `a`, the scale or a stand-in for it, and the kernel's flags."""
    y = empty_channels_last((a.shape[0], channels, *a.shape[2:]), a, None if eight is None else eight.kind)
    flags = {"EIGHT": eight is not None, "INTEGER": y.dtype == torch.int8}
    return y, y if eight is None else eight.scale, flags


def is_integer(x: Tensor) -> bool:
    """Whether products of `x` are summed as integers."""
    return x.dtype == torch.int8


@jit
def scaled_sums(acc, row_scale_ptr, row_scale_stride, column_scale_ptr, rows, columns, M, N):
    """Sums [rows, columns] in fp32, times both scales."""
    row_scale = tl.load(row_scale_ptr + rows * row_scale_stride, mask=rows < M, other=0.0)
    column_scale = tl.load(column_scale_ptr + columns, mask=columns < N, other=0.0)
    return acc.to(tl.float32) * row_scale[:, None] * column_scale[None, :]
