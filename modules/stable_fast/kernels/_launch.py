"""Launching Triton kernels, or only having them compiled, side by side, before a program's first run."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch

from modules.stable_fast.kernels._triton import HAS_TRITON, INTERPRETED, AsyncCompileMode

_ONLY_COMPILE: ContextVar[bool] = ContextVar("only_compile", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """`kernel[grid](*args, **options)`; while `compile_ahead` runs, an order to compile just that."""
    if _ONLY_COMPILE.get():
        kernel.run(*args, grid=grid, warmup=True, **options)
    else:
        kernel[grid](*args, **options)


def compile_ahead(run: Callable[[], object], device: torch.device) -> None:
    """Compiles (or loads from disk) every Triton kernel that `run` would launch, on all cores instead of one by one.

    `run` is called once with its launches left out, so what it returns means nothing; libraries are called as ever. A
    kernel that does not compile is left for its launch to report. Without CUDA nothing is done.
    """
    if device.type != "cuda" or not HAS_TRITON or INTERPRETED:
        return
    token = _ONLY_COMPILE.set(True)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as workers, AsyncCompileMode(workers, ignore_errors=True):
            run()
    finally:
        _ONLY_COMPILE.reset(token)
