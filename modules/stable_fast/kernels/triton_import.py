"""The only file that imports Triton. A flag shows if Triton is there; stand-ins let kernel files import without it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from threading import Lock
from types import SimpleNamespace
from typing import Any

try:
    import triton
    import triton.language as tl
    from triton import AsyncCompileMode
    from triton.errors import TritonError
    from triton.language.extra import cuda, libdevice
    from triton.tools.tensor_descriptor import TensorDescriptor

    HAS_TRITON = True
    TRITON_VERSION: str | None = triton.__version__
    TRITON_PROBLEM = ""
# Windows without triton-windows, macOS, CPU-only or broken installations: the reference implementations run instead.
except (ImportError, OSError, RuntimeError, AttributeError, SyntaxError) as error:
    is_missing = isinstance(error, ModuleNotFoundError) and error.name == "triton"
    TRITON_PROBLEM = "" if is_missing else f"{type(error).__name__}: {error}"
    sys.modules["triton"] = None  # type: ignore[assignment] # so PyTorch gets an ImportError and does without too
    triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b))  # type: ignore[assignment]
    tl = SimpleNamespace(constexpr=int)  # type: ignore[assignment]
    cuda = libdevice = None  # type: ignore[assignment]
    HAS_TRITON = False

    class TritonError(Exception):  # type: ignore[no-redef]
        """Never raised without Triton."""

    class TensorDescriptor:  # type: ignore[no-redef]
        """Never made without Triton."""

    class AsyncCompileMode:  # type: ignore[no-redef]
        """Never entered without Triton."""

    TRITON_VERSION = None

# Gluon, Triton's lower level, is experimental. If a version lacks a name used here, we do without Gluon.
try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor

    tma_load = (
        tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
    )  # the name in Triton 3.6
    HAS_GLUON = True
except (ImportError, OSError, RuntimeError, AttributeError, SyntaxError):
    gluon = mbarrier = tma_load = warpgroup_mma = warpgroup_mma_wait = GluonDescriptor = None  # type: ignore[assignment]
    gl = tl  # type: ignore[assignment]
    HAS_GLUON = False


def _parse_in_turn() -> None:
    """Lets Triton parse one kernel at a time.

    Python's parser has one recursion counter for all threads. Two threads that parse at once can raise
    "SystemError: AST constructor recursion depth mismatch" (CPython issue 106905).
    """
    parse, lock = triton.JITFunction.parse, Lock()

    def parse_alone(kernel: Any) -> Any:
        with lock:
            return parse(kernel)

    triton.JITFunction.parse = parse_alone


if HAS_TRITON:
    _parse_in_turn()

# With TRITON_INTERPRET=1 (read by Triton itself when a kernel is decorated) kernels run on CPU tensors, for the tests.
INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"
# For kernels that spend much time on exp and division: one instruction each, with an error of 2 ulp. The interpreter
# supports neither.
FAST_MATH = tl.constexpr(not INTERPRETED)


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit` if Triton is there, else the bare function, which is never launched."""
    return triton.jit(function) if HAS_TRITON else function


def jit_for_any(*sizes: str) -> Callable[[Callable[..., Any]], Any]:
    """Like `jit`, but one compiled kernel serves every value of the integer arguments `sizes`.

    For other integers, Triton compiles once for multiples of 16 and once for the rest. That helps if the alignment of
    an address depends on them. Otherwise this only makes a new picture size wait for the compiler.
    """
    return lambda function: triton.jit(function, do_not_specialize=sizes) if HAS_TRITON else function


def gluon_jit(function: Callable[..., Any]) -> Any:
    """`gluon.jit` if Gluon is there, else the bare function, which is never launched."""
    return gluon.jit(function) if HAS_GLUON else function


def next_power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


__all__ = [
    "FAST_MATH",
    "HAS_GLUON",
    "HAS_TRITON",
    "INTERPRETED",
    "TRITON_VERSION",
    "AsyncCompileMode",
    "GluonDescriptor",
    "TensorDescriptor",
    "TritonError",
    "cuda",
    "gl",
    "gluon_jit",
    "jit",
    "jit_for_any",
    "libdevice",
    "mbarrier",
    "next_power_of_2",
    "tl",
    "tma_load",
    "triton",
    "warpgroup_mma",
    "warpgroup_mma_wait",
]
