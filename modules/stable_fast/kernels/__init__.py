"""Importing this package registers every op under torch.ops.lightdiffusion."""

from modules.stable_fast.kernels.attention import attention_packed
from modules.stable_fast.kernels.conv import conv2d_cat_epilogue, conv2d_epilogue, upsample_conv2d
from modules.stable_fast.kernels.linear import linear_epilogue, linear_geglu
from modules.stable_fast.kernels.norm import group_norm_silu, layer_norm

__all__ = [
    "attention_packed",
    "conv2d_cat_epilogue",
    "conv2d_epilogue",
    "group_norm_silu",
    "layer_norm",
    "linear_epilogue",
    "linear_geglu",
    "upsample_conv2d",
]
