"""Tables of kernels as users export them."""

from __future__ import annotations

from pathlib import Path

from modules.stable_fast.store.tables import Measured, Table, table_text

RTX_4090 = {
    "chip": "sm89-128",
    "gpu": "NVIDIA GeForce RTX 4090",
    "torch": "2.13.0+cu130",
    "triton": "3.6.0",
    "cudnn": "91900",
}
LINEAR = Measured("linear_epilogue", (512, 320, True, "none", "float16"), "cublas", {"cublas": 0.02, "tiles": 0.03})


def table(*choices: Measured, **facts: str) -> Table:
    """A table of these choices, or of one, measured on an RTX 4090 unless `facts` say otherwise."""
    return Table(RTX_4090 | facts, choices or (LINEAR,))


def save_table(path: Path, *choices: Measured, **facts: str) -> Path:
    path.write_text(table_text(table(*choices, **facts)), encoding="utf-8")
    return path
