"""Launching Triton kernels, or only having them compiled, side by side, before a program's first run."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch

from modules.stable_fast.kernels._triton import HAS_TRITON, INTERPRETED, AsyncCompileMode, TritonError

_ONLY_COMPILE: ContextVar[bool] = ContextVar("only_compile", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """`kernel[grid](*args, **options)`; while `compile_ahead` runs, an order to compile just that."""
    if _ONLY_COMPILE.get():
        kernel.run(*args, grid=grid, warmup=True, **options)
    else:
        kernel[grid](*args, **options)


class _Workers(ThreadPoolExecutor):
    """Compiles kernels, builds their launchers (a C compiler's work) and loads them, which Triton leaves for later."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(os.cpu_count(), initializer=torch.cuda.set_device, initargs=(device,))

    def submit(self, compile_kernel: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        return super().submit(_ready, compile_kernel)


def _ready(compile_kernel: Callable[[], Any]) -> Any:
    kernel = compile_kernel()
    try:
        kernel.run  # noqa: B018 - a property that does the rest
    except TritonError:  # it needs more than this GPU has; its launch will report the same
        pass
    return kernel


def compile_ahead(run: Callable[[], object], device: torch.device) -> None:
    """Compiles (or loads from disk) every Triton kernel that `run` would launch, on all cores instead of one by one.

    `run` is called once with its launches left out, so what it returns means nothing; libraries are called as ever. A
    kernel that does not compile is left for its launch to report. Without CUDA nothing is done.
    """
    if device.type != "cuda" or not HAS_TRITON or INTERPRETED:
        return
    token = _ONLY_COMPILE.set(True)
    try:
        with _Workers(device) as workers, AsyncCompileMode(workers, ignore_errors=True):
            run()
    finally:
        _ONLY_COMPILE.reset(token)
