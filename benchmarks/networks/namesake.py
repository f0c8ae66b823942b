"""diffusers' UNet compiled by the library that Stable-Fast has its name from: an opponent, where it is installed.

The library is `stable-fast-pruna` of the Python package registry, and is imported as `sfast`. Only benchmarks use it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from torch import nn

PACKAGE = "stable-fast-pruna"
NAMESAKES = ("diffusers-sfast", "diffusers-sfast-fp32-sums")  # the subjects: as it comes, and with sums in fp32


def why_absent() -> str | None:
    """Says in a line why the library cannot be used here; None if it can."""
    if importlib.util.find_spec("sfast") is None:
        return f"{PACKAGE} is not installed"
    try:
        importlib.import_module("sfast.compilers.diffusion_pipeline_compiler")
    except ImportError as error:  # its extension fits one version of torch only
        return f"{PACKAGE} does not load here: {' '.join(str(error).split())[:200]}"
    return None


def compiled_by_namesake(unet: nn.Module, *, fp32_sums: bool) -> Any:
    """Returns diffusers' UNet with the library's graph rewrites, its Triton kernels and a CUDA graph for each size.

    With `fp32_sums` products are accumulated in fp32. The library's default is to let them be accumulated in fp16.
    """
    compiler: Any = importlib.import_module("sfast.compilers.diffusion_pipeline_compiler")
    config = compiler.CompilationConfig.Default()
    config.enable_xformers = False  # PyTorch's own attention, as for all other opponents
    config.enable_triton = config.enable_cuda_graph = True
    if fp32_sums:
        config.prefer_lowp_gemm = config.enable_fused_linear_geglu = False
    return compiler.compile_unet(unet, config)
