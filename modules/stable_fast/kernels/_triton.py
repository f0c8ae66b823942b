"""The one place that imports Triton: a flag says if it is there, and stand-ins let kernel files import without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

try:
    import triton
    import triton.language as tl
    from triton.runtime.errors import OutOfResources
    from triton.tools.tensor_descriptor import TensorDescriptor

    HAS_TRITON = True
    TRITON_VERSION: str | None = triton.__version__
except ImportError:  # Windows without triton-windows, macOS, CPU-only installs: the reference path is used
    triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b))  # type: ignore[assignment]
    tl = SimpleNamespace(constexpr=int)  # type: ignore[assignment]
    TensorDescriptor = SimpleNamespace  # type: ignore[assignment, misc]
    HAS_TRITON = False

    class OutOfResources(Exception):  # type: ignore[no-redef]
        """Never raised without Triton."""

    TRITON_VERSION = None

# With TRITON_INTERPRET=1 (read by Triton itself when a kernel is decorated) kernels run on CPU tensors, for the tests.
INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit` where Triton exists; otherwise the bare function, which is never launched."""
    return triton.jit(function) if HAS_TRITON else function


def next_power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


__all__ = [
    "HAS_TRITON",
    "INTERPRETED",
    "TRITON_VERSION",
    "OutOfResources",
    "TensorDescriptor",
    "jit",
    "next_power_of_2",
    "tl",
    "triton",
]
