"""Stable-Fast: run every operation at the earliest moment its inputs are known, in the fewest kernels."""

from modules.stable_fast.config import LEVELS, StableFastConfig, level_in_force
from modules.stable_fast.generic import compile_module
from modules.stable_fast.graphs.table import SharedCapture
from modules.stable_fast.module import CompiledModule
from modules.stable_fast.patcher import StableFastPatcher
from modules.stable_fast.report import Report
from modules.stable_fast.runner import StableFastRunner
from modules.stable_fast.trace import TraceError

__all__ = [
    "LEVELS",
    "CompiledModule",
    "Report",
    "SharedCapture",
    "StableFastConfig",
    "StableFastPatcher",
    "StableFastRunner",
    "TraceError",
    "compile_module",
    "level_in_force",
]
