"""The fusion passes, in the order in which they run: each may rely on the form that those before it leave behind."""

from collections.abc import Sequence

import torch
from torch import fx

from modules.stable_fast.graph.sizes import Sizes
from modules.stable_fast.passes import (
    attention,
    cleanup,
    concat,
    conv_epilogue,
    geglu,
    group_norm_silu,
    layer_norm,
    linear_epilogue,
    packed_qkv,
    subpixel_upsample,
    tokens,
)
from modules.stable_fast.passes.base import Editor, FusionPass, run_pass

PASSES: tuple[FusionPass, ...] = (
    cleanup.PASS,
    group_norm_silu.PASS,
    concat.PASS,
    subpixel_upsample.PASS,
    conv_epilogue.PASS,
    tokens.PASS,
    geglu.PASS,
    packed_qkv.PASS,
    attention.PASS,
    linear_epilogue.PASS,
    layer_norm.PASS,
)
LEAN_PASSES = tuple(fusion for fusion in PASSES if not fusion.adds_weights)


def passes_for(level: str, device: torch.device) -> Sequence[FusionPass]:
    """On a GPU level "fused" is there for those who are short of memory; elsewhere it is the fastest there is."""
    return LEAN_PASSES if level == "fused" and device.type == "cuda" else PASSES


def run_passes(graph: fx.Graph, sizes: Sizes, passes: Sequence[FusionPass]) -> dict[str, dict[str, int]]:
    """Runs passes in order on a labelled graph; matches by pass and rule."""
    cleanup.erase_checks(graph)
    editor = Editor(graph, sizes)
    matches: dict[str, dict[str, int]] = {}
    for fusion in passes:
        matches[fusion.name] = dict(run_pass(fusion, editor))
        cleanup.share_equal_calls(graph)
    return matches
