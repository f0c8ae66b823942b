"""Importing this package registers every op under torch.ops.lightdiffusion."""

from modules.stable_fast.kernels.attention import attention_heads, attention_packed
from modules.stable_fast.kernels.conv import conv2d_cat_epilogue, conv2d_epilogue, upsample_conv2d
from modules.stable_fast.kernels.eight_bits import (
    conv2d_eight,
    dequantize_channels,
    group_norm_silu_quantized,
    layer_norm_quantized,
    linear_eight,
    linear_geglu_eight,
    quantize_rows,
    quantize_tensor,
    upsample_conv2d_eight,
)
from modules.stable_fast.kernels.elementwise import gated, rms_norm_rotary, rotary_embedding
from modules.stable_fast.kernels.linear import linear_cat, linear_epilogue, linear_geglu
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
    "conv2d_eight",
    "conv2d_epilogue",
    "dequantize_channels",
    "gated",
    "group_norm_silu",
    "group_norm_silu_quantized",
    "layer_norm",
    "layer_norm_quantized",
    "linear_cat",
    "linear_eight",
    "linear_epilogue",
    "linear_geglu",
    "linear_geglu_eight",
    "modulated_layer_norm",
    "quantize_rows",
    "quantize_tensor",
    "rms_norm",
    "rms_norm_rotary",
    "rotary_embedding",
    "upsample_conv2d",
    "upsample_conv2d_eight",
]
