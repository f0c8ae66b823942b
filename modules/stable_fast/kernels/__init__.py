"""Importing this package registers every op under torch.ops.lightdiffusion."""

from modules.stable_fast.kernels import (
    attention_packed,
    conv2d_cat_epilogue,
    conv2d_epilogue,
    group_norm_silu,
    layer_norm,
    linear_epilogue,
    linear_geglu,
    upsample_conv2d,
)

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
