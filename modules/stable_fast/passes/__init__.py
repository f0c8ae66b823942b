"""The fusion passes, in order. A pass may rely on the form that earlier passes leave behind."""

from collections.abc import Sequence

import torch
from torch import fx

from modules.stable_fast.graph.sizes import Sizes
from modules.stable_fast.passes import (
    attention_heads,
    attention_packed,
    cleanup,
    concat,
    conv2d_epilogue,
    group_norm_silu,
    layer_norm,
    linear_epilogue,
    linear_geglu,
    packed_qkv,
    tokens,
    upsample_conv2d,
)
from modules.stable_fast.passes.base import Editor, FusionPass, apply_pass
from modules.stable_fast.passes.eight_bits.products import eight_bit_pass
from modules.stable_fast.passes.eight_bits.storage import storage_pass
from modules.stable_fast.passes.transformers import (
    attention,
    clamp_infinities,
    gated_activation,
    gelu_tanh,
    linear_cat,
    modulation,
    rms_norm,
    rms_norm_rotary,
    rotary_embedding,
)
from modules.stable_fast.precision import EightBits

PASSES: tuple[FusionPass, ...] = (
    cleanup.PASS,
    group_norm_silu.PASS,
    concat.PASS,
    upsample_conv2d.PASS,
    conv2d_epilogue.PASS,
    tokens.PASS,
    linear_geglu.PASS,
    rms_norm.PASS,
    rotary_embedding.PASS,
    rms_norm_rotary.PASS,
    modulation.PASS,
    gelu_tanh.PASS,
    gated_activation.PASS,
    attention.PASS,
    packed_qkv.PASS,
    packed_qkv.ANY_PASS,
    packed_qkv.VECTOR_PASS,
    attention_packed.PASS,
    attention_heads.PASS,
    linear_cat.PASS,
    linear_epilogue.PASS,
    layer_norm.PASS,
    clamp_infinities.PASS,
    rms_norm.ADD_PASS,
)
LEAN_PASSES = tuple(fusion for fusion in PASSES if not fusion.adds_weights)


def passes_for(device: torch.device, *, captured: bool, eight_bits: EightBits | None = None) -> Sequence[FusionPass]:
    """Without captured graphs, a GPU gets only passes that add no weights: that level is for people short of memory.

    With `eight_bits`, the last pass lets most layers compute with such numbers, or only stores their weights so.
    """
    passes = LEAN_PASSES if device.type == "cuda" and not captured else PASSES
    if eight_bits is None:
        return passes
    if eight_bits.weights_only:
        return (*LEAN_PASSES, storage_pass(eight_bits.numbers))
    return (*passes, eight_bit_pass(eight_bits.numbers))


def run_passes(graph: fx.Graph, sizes: Sizes, passes: Sequence[FusionPass]) -> dict[str, dict[str, int]]:
    """Runs the passes in order on a labelled graph. Returns the number of matches by pass and rule."""
    cleanup.erase_checks(graph)
    cleanup.share_equal_calls(graph)
    editor = Editor(graph, sizes)
    matches: dict[str, dict[str, int]] = {}
    for fusion in passes:
        matches[fusion.name] = dict(apply_pass(fusion, editor))
        if matches[fusion.name]:
            cleanup.share_equal_calls(graph)
    return matches
