"""Stable-Fast: runs every operation as soon as its inputs are known, with as few kernels as possible."""

from modules.stable_fast.compiled_module import CompiledModule
from modules.stable_fast.config import LEVELS, StableFastConfig, level_in_force
from modules.stable_fast.graph.trace import TraceError
from modules.stable_fast.other_networks import compile_module
from modules.stable_fast.patcher import StableFastPatcher
from modules.stable_fast.pipelines.compile import CompiledPipeline, compile_pipeline
from modules.stable_fast.precision import has_eight_bits, stores_weights
from modules.stable_fast.report import Report
from modules.stable_fast.runtime.adjoin import adjoin_projections
from modules.stable_fast.runtime.capture_table import SharedCapture
from modules.stable_fast.store.exchange import check_card, read_table
from modules.stable_fast.store.tables import Table
from modules.stable_fast.unet_runner import StableFastRunner

__all__ = [
    "LEVELS",
    "CompiledModule",
    "CompiledPipeline",
    "Report",
    "SharedCapture",
    "StableFastConfig",
    "StableFastPatcher",
    "StableFastRunner",
    "Table",
    "TraceError",
    "adjoin_projections",
    "check_card",
    "compile_module",
    "compile_pipeline",
    "has_eight_bits",
    "level_in_force",
    "read_table",
    "stores_weights",
]
