"""The fusion passes, in the order in which they run: each may rely on the form that those before it leave behind."""

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
from modules.stable_fast.passes.base import FusionPass

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
