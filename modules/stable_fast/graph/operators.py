"""The operators that a saved graph may call. They come from traces of networks and from our passes, and none of
them changes its arguments or opens a file. A graph with any other operator is traced in each run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload

OUR_NAMESPACE = "lightdiffusion"
ATEN = frozenset(
    # numbers
    "abs acos add addcdiv addcmul asin atan atan2 ceil clamp clamp_max clamp_min clip cos cosh div erf exp expm1 floor "
    "floor_divide fmod hypot log log10 log1p log2 maximum minimum mul neg pow reciprocal remainder round rsqrt rsub "
    "sgn sigmoid sign sin sinh sqrt square sub tan tanh trunc lerp nan_to_num "
    # comparisons and choices
    "bitwise_and bitwise_not bitwise_or bitwise_xor eq ge gt isfinite isinf isnan le logical_and logical_not "
    "logical_or logical_xor lt masked_fill ne where "
    # activations
    "celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax mish prelu relu relu6 selu silu softmax "
    "_softmax softplus threshold "
    # sums and the like
    "all amax amin any argmax argmin argsort cumsum linalg_vector_norm logsumexp max mean min norm prod sort std sum "
    "topk var var_mean "
    # products
    "addmm baddbmm bilinear bmm dot einsum linear matmul mm mv outer scaled_dot_product_attention "
    # convolutions, pooling, resizing
    "_upsample_bicubic2d_aa _upsample_bilinear2d_aa adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "avg_pool1d avg_pool2d avg_pool3d conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "convolution max_pool1d max_pool2d max_pool3d pixel_shuffle pixel_unshuffle upsample_bicubic2d "
    "upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    # norms
    "batch_norm group_norm instance_norm layer_norm native_group_norm native_layer_norm rms_norm "
    # shapes
    "alias broadcast_to cat channel_shuffle chunk clone constant_pad_nd contiguous detach diagonal expand expand_as "
    "flatten flip movedim narrow numpy_T pad permute ravel repeat repeat_interleave reshape roll select slice split "
    "split_with_sizes squeeze stack swapaxes t tile transpose tril triu unbind unflatten unfold unsqueeze view "
    "view_as _unsafe_view "
    # looking up
    "embedding gather index index_select masked_select scatter take_along_dim "
    # types and new tensors
    "arange empty_like eye full full_like lift_fresh_copy linspace new_full new_ones new_zeros ones ones_like "
    "scalar_tensor to _to_copy type_as zeros zeros_like "
    # random numbers
    "bernoulli dropout native_dropout normal rand rand_like randint randn randn_like randperm".split()
)


def may_be_kept(target: Any) -> bool:
    """Whether a saved graph may call this."""
    if not isinstance(target, OpOverload):
        return False
    schema = target._schema  # pyright: ignore[reportPrivateUsage]  # PyTorch has no public access to it
    if schema.is_mutable:
        return False
    name = schema.name.partition("::")[2]
    return target.namespace == OUR_NAMESPACE or (target.namespace == "aten" and name in ATEN)


def operator_called(name: str) -> OpOverload:
    """The operator `namespace.name.overload`. Raises ValueError if a saved graph may not call it."""
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace != OUR_NAMESPACE and not (namespace == "aten" and operation in ATEN):
        raise ValueError(f"{name} is not an operator that a graph may call")
    target = getattr(getattr(getattr(torch.ops, namespace), operation), overload)
    if not may_be_kept(target):
        raise ValueError(f"{name} is not an operator that a graph may call")
    return target
