"""Importing this package registers every op under torch.ops.lightdiffusion."""

from modules.stable_fast.kernels.attention import attention_heads, attention_packed
from modules.stable_fast.kernels.conv import conv2d_cat_epilogue, conv2d_epilogue, upsample_conv2d
from modules.stable_fast.kernels.elementwise import gated, rotary_embedding
from modules.stable_fast.kernels.linear import linear_epilogue, linear_geglu
from modules.stable_fast.kernels.norm import (
    clamp_infinities,
    clamped_rms_norm,
    group_norm_silu,
    layer_norm,
    modulated_layer_norm,
    rms_norm,
)

__all__ = [
    "attention_heads",
    "attention_packed",
    "clamp_infinities",
    "clamped_rms_norm",
    "conv2d_cat_epilogue",
    "conv2d_epilogue",
    "gated",
    "group_norm_silu",
    "layer_norm",
    "linear_epilogue",
    "linear_geglu",
    "modulated_layer_norm",
    "rms_norm",
    "rotary_embedding",
    "upsample_conv2d",
]
