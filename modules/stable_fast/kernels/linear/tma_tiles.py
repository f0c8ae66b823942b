"""The tiles of Hopper's matrix products: their sizes, which is likely to be the fastest, which operands they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from modules.stable_fast.kernels.devices import runs_tma_kernels
from modules.stable_fast.kernels.triton_import import triton

REGISTERS = 65536  # of a multiprocessor, for all its threads


class TmaMatmulTile(NamedTuple):
    """Rows, columns and depth of a tile, warps, load pipeline stages, and programs per multiprocessor.

    Blocks are powers of two, so `extra` columns use a second accumulator: 160 columns are 128 + 32.
    """

    m: int
    n: int
    extra: int
    k: int
    warps: int
    stages: int
    programs: int

    @property
    def columns(self) -> int:
        return self.n + self.extra

    @property
    def registers(self) -> int:
        """How many a thread may have, so that a multiprocessor holds all programs at once."""
        return min(255, REGISTERS // (32 * self.warps * self.programs) // 8 * 8)

    @property
    def name(self) -> str:
        return f"tma_{self.m}x{self.columns}x{self.k}"


# With 160 columns, the layers of SD (320, 640, 1280 or 5120 wide) have multiples of 128 tiles, for 132 multiprocessors.
TMA_MATMUL_TILES = (
    TmaMatmulTile(128, 128, 32, 64, 8, 4, 1),
    TmaMatmulTile(128, 128, 0, 64, 8, 4, 1),
    TmaMatmulTile(64, 128, 32, 64, 4, 3, 2),
    TmaMatmulTile(64, 64, 0, 64, 4, 4, 3),
)
TMA_GEGLU_TILES = (
    TmaMatmulTile(128, 128, 0, 64, 8, 4, 1),
    TmaMatmulTile(128, 128, 32, 64, 8, 3, 1),
    TmaMatmulTile(128, 64, 0, 64, 8, 3, 2),
)


def choose_tma_tile(
    tiles: tuple[TmaMatmulTile, ...],
    m: int,
    n: int,
    k: int,
    halves: int,
    processors: int,
    itemsize: int = 2,
    measured: Mapping[str, float] | None = None,
) -> TmaMatmulTile:
    """The tile with the lowest time estimate. With few tiles, it mostly depends on how evenly they fill the GPU.

    `measured` gives by name how many times its estimate a tile took.
    """
    times = measured or {}
    return min(tiles, key=lambda tile: times.get(tile.name, 1.0) * _cycles(tile, m, n, k, halves, processors, itemsize))


def _cycles(tile: TmaMatmulTile, m: int, n: int, k: int, halves: int, processors: int, itemsize: int) -> float:
    """Clock cycles of the busiest multiprocessor.

    It does 2048 multiplications of 16 bits (twice as many of 8) per cycle and gets about 40 bytes from the L2 cache.
    Each round of programs adds an epilogue of about 16 instructions per column pair and, without a flattened loop, the
    time to refill the pipeline.
    """
    tiles = triton.cdiv(m, tile.m) * triton.cdiv(n, tile.columns)
    width = halves * tile.columns
    depth = tile.k * itemsize
    step = max(tile.m * width * depth / 4096, (tile.m + width) * depth / 40)
    refill = 2000 if tile.extra else 500
    rounds = triton.cdiv(tiles, processors * tile.programs)
    busiest = triton.cdiv(tiles, processors)
    return busiest * triton.cdiv(k, tile.k) * step + rounds * (refill + tile.m * tile.columns / 8)


def serves_tma(columns: int, *operands: Tensor | None) -> bool:
    """Whether a Hopper GPU can copy tiles of these operands, and of a result with `columns` columns.

    The operands are the rows of one or two inputs and of the weight, contiguous within a row. All addresses and row
    strides must be multiples of 16 bytes.
    """
    present = [x for x in operands if x is not None]
    itemsize = present[0].element_size()
    strides = [columns] + [x.stride(-2) for x in present]
    return (
        all(runs_tma_kernels(x) and x.numel() > 0 and x.data_ptr() % 16 == 0 for x in present)
        and all(stride * itemsize % 16 == 0 for stride in strides)
    )  # fmt: skip
