"""Launches Triton kernels, or compiles them in parallel before the first run of a program."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import cache
from threading import Thread
from typing import Any

import torch

from modules.stable_fast.kernels.devices import number_of
from modules.stable_fast.kernels.triton_import import (
    HAS_TRITON,
    INTERPRETED,
    AsyncCompileMode,
    TritonError,
    jit,
    tl,
)

log = logging.getLogger(__name__)

# Errors that may come from a run without its launches, from Triton, or from Python's own parser.
FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, SystemError, TypeError, ValueError, TritonError, CancelledError),
)

Grid = tuple[int, ...]
# Takes a kernel, its grid, its arguments and its options.
Launcher = Callable[[Any, Grid, tuple[Any, ...], dict[str, Any]], None]


def run_kernel(kernel: Any, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    kernel[grid](*args, **options)


def compile_kernel(kernel: Any, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    kernel.run(*args, grid=grid, warmup=True, **options)


LAUNCHER: ContextVar[Launcher] = ContextVar("launcher", default=run_kernel)


def launch_kernel(kernel: Any, grid: Grid, *args: Any, **options: Any) -> None:
    """Runs `kernel[grid](*args, **options)`. Inside `compile_ahead` it only compiles that kernel."""
    LAUNCHER.get()(kernel, grid, args, options)


class _Workers(ThreadPoolExecutor):
    """Compiles kernels, loads them and builds their launchers (with a C compiler). Triton delays the last two."""

    def __init__(self, device: torch.device, until: float) -> None:
        super().__init__(_cores(), initializer=torch.cuda.set_device, initargs=(number_of(device),))
        self._stopped, self._until = False, until
        self.kernels = 0

    def submit(self, compile_kernel: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        self.kernels += 1
        return super().submit(self._compile, compile_kernel)

    def stop(self) -> None:
        """Makes queued work fail at once. Cancelling the work would not wake its waiters."""
        self._stopped = True
        self.shutdown(wait=False)

    def _compile(self, compile_kernel: Callable[[], Any]) -> Any:
        if self._stopped or time.perf_counter() > self._until:
            raise CancelledError
        kernel = compile_kernel()
        with suppress(TritonError):  # the kernel is too big for this GPU, and its launch will report that
            kernel.run  # noqa: B018 - a property that loads the kernel and builds its launcher
        return kernel


def _cores() -> int | None:
    """The number of cores that this process may use, if known."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@jit
def _waking_kernel(x_ptr, y_ptr):  # pyright: ignore[reportMissingParameterType]
    tl.store(y_ptr, tl.load(x_ptr))


def wake_compiler(device: torch.device) -> None:
    """Begins in a thread what Triton does once in each process, which takes a second or two: it builds its link to the
    driver with a C compiler, hashes itself, and sets up LLVM. Returns at once. Without CUDA, nothing happens."""
    if device.type == "cuda" and HAS_TRITON and not INTERPRETED:
        _waking(number_of(device))


@cache
def _waking(device_index: int) -> Thread:
    """The thread that wakes the compiler for this GPU, once in each process."""
    thread = Thread(target=_wake, args=(device_index,), name="wake-compiler")
    thread.start()
    return thread


def _wake(device_index: int) -> None:
    """Errors are ignored here: whatever is missing, the first kernel misses too, and its launch reports that."""
    try:
        torch.cuda.set_device(device_index)
        kernel = _waking_kernel.warmup(torch.float16, torch.float16, grid=(1,), num_warps=1)
        kernel.run  # noqa: B018 - a property that loads the kernel and builds its launcher
    except (*FAULTS, subprocess.SubprocessError) as error:
        log.debug("the compiler was not woken: %s: %s", type(error).__name__, error)


def compile_ahead(run: Callable[[], object], device: torch.device, *, until: float = math.inf) -> int:
    """Compiles (or loads from disk) every Triton kernel that `run` would launch, in parallel on all cores.

    This calls `run` once without its launches, so the result of `run` is meaningless. Libraries are called as usual.
    All errors are ignored here, including those of kernels that do not compile, because the real run comes next and
    reports them. Without CUDA, nothing happens. No kernel is begun after `until` (of time.perf_counter). Returns the
    number of kernels.
    """
    if device.type != "cuda" or not HAS_TRITON or INTERPRETED:
        return 0
    _waking(number_of(device)).join()
    workers = _Workers(device, until)
    try:
        copy_context().run(_only_compile, run, workers)
    except FAULTS as error:
        log.debug("compiling ahead ended early: %s: %s", type(error).__name__, error)
    finally:
        workers.stop()  # after an interrupt, this drops queued work
    return workers.kernels


def _only_compile(run: Callable[[], object], workers: _Workers) -> None:
    """Runs in a separate context, because Triton 3.6 leaves its mode active after an interrupt."""
    LAUNCHER.set(compile_kernel)
    with AsyncCompileMode(workers, ignore_errors=True):
        try:
            run()
        except BaseException:
            workers.stop()  # otherwise the mode waits for all queued work
            raise
