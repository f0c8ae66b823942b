"""The one place that imports Gluon, Triton's language of explicit layouts, whose names still move between versions.

`WINDOWS` is true in Triton 3.6, where a view of shared memory may reach beyond the slot it starts in (3.9 refuses that,
and has other names); elsewhere nothing is launched.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from modules.stable_fast.kernels._triton import INTERPRETED, TRITON_VERSION

try:
    from triton.experimental.gluon import jit as _jit
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia import hopper
    from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as TiledDescriptor

    load_tile = tma.async_copy_global_to_shared
    WINDOWS = not INTERPRETED and str(TRITON_VERSION).startswith("3.6.")
except (ImportError, AttributeError):  # no Triton, or one without Gluon for Hopper
    gl = SimpleNamespace(constexpr=int)
    hopper = mbarrier = load_tile = TiledDescriptor = _jit = None
    WINDOWS = False


def gluon_jit(function: Callable[..., Any]) -> Any:
    """`gluon.jit` where it serves; otherwise the bare function, which is never launched."""
    return _jit(function) if WINDOWS else function


__all__ = ["WINDOWS", "TiledDescriptor", "gl", "gluon_jit", "hopper", "load_tile", "mbarrier"]
