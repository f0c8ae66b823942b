"""Launching Triton kernels, or only having them compiled, side by side, before a program's first run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import torch

from modules.stable_fast.kernels.triton_import import HAS_TRITON, INTERPRETED, AsyncCompileMode, TritonError

log = logging.getLogger(__name__)

# What may come out of a run whose launches are left out, of Triton, and of Python's own parser.
FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, SystemError, TypeError, ValueError, TritonError, CancelledError),
)

_ONLY_COMPILE: ContextVar[bool] = ContextVar("only_compile", default=False)


def launch_kernel(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """`kernel[grid](*args, **options)`; while `compile_ahead` runs, an order to compile just that."""
    if _ONLY_COMPILE.get():
        kernel.run(*args, grid=grid, warmup=True, **options)
    else:
        kernel[grid](*args, **options)


class _Workers(ThreadPoolExecutor):
    """Compiles kernels, builds their launchers (a C compiler's work) and loads them, which Triton leaves for later."""

    def __init__(self, device: torch.device) -> None:
        # PyTorch's type stubs do not say that a device may have no index.
        no_index = device.index is None  # pyright: ignore[reportUnnecessaryComparison]
        index = torch.cuda.current_device() if no_index else device.index
        super().__init__(_cores(), initializer=torch.cuda.set_device, initargs=(index,))
        self._stopped = False

    def submit(self, compile_kernel: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        return super().submit(self._compile, compile_kernel)

    def stop(self) -> None:
        """What is queued fails at once. (To cancel it would not wake those who wait for it.)"""
        self._stopped = True
        self.shutdown(wait=False)

    def _compile(self, compile_kernel: Callable[[], Any]) -> Any:
        if self._stopped:
            raise CancelledError
        kernel = compile_kernel()
        with suppress(TritonError):  # it needs more than this GPU has; its launch will report the same
            kernel.run  # noqa: B018 - a property that does the rest
        return kernel


def _cores() -> int | None:
    """Those this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def compile_ahead(run: Callable[[], object], device: torch.device) -> None:
    """Compiles (or loads from disk) every Triton kernel that `run` would launch, on all cores instead of one by one.

    `run` is called once with its launches left out, so what it returns means nothing; libraries are called as ever. A
    kernel that does not compile is left for its launch to report, and whatever else goes wrong for the real run, which
    comes next. Without CUDA nothing is done.
    """
    if device.type != "cuda" or not HAS_TRITON or INTERPRETED:
        return
    workers = _Workers(device)
    try:
        copy_context().run(_only_compile, run, workers)
    except FAULTS as error:
        log.debug("compiling ahead ended early: %s: %s", type(error).__name__, error)
    finally:
        workers.stop()  # done, unless an interrupt ended the wait: then without compiling the whole queue


def _only_compile(run: Callable[[], object], workers: _Workers) -> None:
    """In a context that is thrown away: Triton 3.6 leaves its mode behind when an interrupt ends it."""
    _ONLY_COMPILE.set(True)
    with AsyncCompileMode(workers, ignore_errors=True):
        try:
            run()
        except BaseException:
            workers.stop()  # the mode waits for all that is ordered
            raise
