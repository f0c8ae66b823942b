"""Linear on two inputs that would be joined first: y = [a, b] W^T + bias.

Two products add into one result, so nothing is joined in memory. The sum of the first is rounded once more.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import by_cublas, product_key
from modules.stable_fast.kernels.devices import uses_kernels
from modules.stable_fast.kernels.registry import register, run_chosen

# Not measured. For n rows, joining moves 4 n (A + B) bytes, and the second product 4 n N bytes and takes a launch.
MANY_ROWS = 1024


def linear_cat_reference(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """a [..., A], b [..., B], weight [N, A + B]."""
    return F.linear(torch.cat((a, b), dim=-1), weight, bias)


def two_products(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    split = a.shape[-1]
    with by_cublas(a):
        y = F.linear(b.reshape(-1, b.shape[-1]), weight[:, split:], bias)
        return y.addmm_(a.reshape(-1, split), weight[:, :split].t()).view(*a.shape[:-1], len(weight))


def cublas_of_copy(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with by_cublas(a):
        return linear_cat_reference(a, b, weight, bias)


IMPLEMENTATIONS = {"two_products": two_products, "cublas_of_copy": cublas_of_copy}


def _linear_cat(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    reference = partial(linear_cat_reference, a, b, weight, bias)
    if not uses_kernels(a):
        return reference()
    rows = a.numel() // a.shape[-1]
    key = (rows, a.shape[-1], b.shape[-1], len(weight), bias is not None, product_key(a))
    chain = ("two_products" if rows >= MANY_ROWS else "cublas_of_copy",)
    return run_chosen("linear_cat", key, IMPLEMENTATIONS, chain, (a, b, weight, bias), reference)


def _fake(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty((*a.shape[:-1], len(weight)))


register("linear_cat(Tensor a, Tensor b, Tensor weight, Tensor? bias) -> Tensor", _linear_cat, _fake)
