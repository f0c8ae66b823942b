"""Computes how each kind of LoRA changes one weight, in that weight's dtype (the patcher passes fp32)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

Slice = tuple[int, int, int]  # dimension, start, length


@dataclass(frozen=True, eq=False, kw_only=True)
class Patch(ABC):
    """A change to one weight, W -> W + strength * delta, or DoRA's formula if `magnitude` is given.

    `scale` is alpha / rank. `slice` is the part of a packed weight to change; the caller narrows the weight to it.
    """

    scale: float = 1.0
    magnitude: Tensor | None = None
    slice: Slice | None = None

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Rows and columns of the target weight after flattening all dimensions but the first."""

    @abstractmethod
    def product(self, like: Tensor) -> Tensor:
        """Returns delta / scale with `like`'s device and dtype, in any shape with as many elements as the weight."""

    def factors(self) -> Iterator[Tensor]:
        """Yields every tensor of the file that belongs to this patch."""
        for field in fields(self):
            value = getattr(self, field.name)
            members = value if isinstance(value, tuple) else (value,)
            yield from (member for member in members if isinstance(member, Tensor))

    def to(self, device: torch.device) -> Patch:
        """Copies the patch to this device without changing its dtype, so that merging needs no transfers."""
        return replace(self, **{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})

    def apply(self, weight: Tensor, strength: float) -> Tensor:
        product = self.product(weight).reshape(weight.shape)
        if self.magnitude is None:
            return torch.add(weight, product, alpha=self.scale * strength)
        changed = torch.add(weight, product, alpha=self.scale)
        return torch.lerp(weight, decompose(changed, self.magnitude.to(weight)), strength)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(member, device) for member in value)
    return value.to(device) if isinstance(value, Tensor) else value


def decompose(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Combines DoRA's direction and magnitude, m * V / ||V|| (Liu et al. 2024, arXiv 2402.09353, eq. 5).

    The norm is taken over each output's weights or, in early LyCORIS files, over each input's weights. The shape of
    the magnitude decides between the two: [out, 1, ...] or [1, in, ...].
    """
    per_output = magnitude.ndim == 1 or (magnitude.shape[0] == weight.shape[0] and magnitude.numel() == weight.shape[0])
    kept = 0 if per_output else 1
    others = [dim for dim in range(weight.ndim) if dim != kept]
    norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (magnitude.reshape(norm.shape) / norm.clamp_min(torch.finfo(weight.dtype).tiny))


def _rebuild_tucker(core: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """Expands a convolution's Tucker form: core [p, q, k, k], outputs [p, out], inputs [q, in] -> [out, in, k, k]."""
    return torch.einsum("pq...,po,qi->oi...", core, outputs, inputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class LowRank(Patch):
    """LoRA, delta = scale * up @ down (Hu et al. 2021, arXiv 2106.09685); `mid`: LoCon's Tucker form."""

    up: Tensor
    down: Tensor
    mid: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        area = self.mid[0, 0].numel() if self.mid is not None else 1
        return self.up.shape[0], self.down[0].numel() * area

    def product(self, like: Tensor) -> Tensor:
        up, down = self.up.to(like).flatten(1), self.down.to(like).flatten(1)
        if self.mid is not None:
            return _rebuild_tucker(self.mid.to(like), up.T, down)
        return up @ down


@dataclass(frozen=True, eq=False, kw_only=True)
class Hadamard(Patch):
    """LoHa, delta = scale * (a1 @ b1) * (a2 @ b2) (Hyeon-Woo et al. 2021, arXiv 2108.06098); cores: Tucker form."""

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    core1: Tensor | None = None
    core2: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        if self.core1 is None:
            return self.a1.shape[0], self.b1.shape[1]
        return self.a1.shape[1], self.b1.shape[1] * self.core1[0, 0].numel()

    def product(self, like: Tensor) -> Tensor:
        a1, b1, a2, b2 = (factor.to(like) for factor in (self.a1, self.b1, self.a2, self.b2))
        if self.core1 is None or self.core2 is None:
            return (a1 @ b1) * (a2 @ b2)
        return _rebuild_tucker(self.core1.to(like), a1, b1) * _rebuild_tucker(self.core2.to(like), a2, b2)


@dataclass(frozen=True, eq=False, kw_only=True)
class Kronecker(Patch):
    """LoKr, delta = scale * kron(left, right) (Yeh et al. 2023, arXiv 2309.14859).

    Each side is one tensor, two low-rank factors, or (right only) a Tucker core followed by its two factors.
    """

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]

    @property
    def size(self) -> tuple[int, int]:
        left, right = _factor_size(self.left), _factor_size(self.right)
        return left[0] * right[0], left[1] * right[1]

    def product(self, like: Tensor) -> Tensor:
        left = _whole(tuple(factor.to(like) for factor in self.left))
        right = _whole(tuple(factor.to(like) for factor in self.right))
        left = left.reshape(left.shape + (1,) * (right.ndim - left.ndim))
        return torch.kron(left, right.contiguous())


def _whole(factors: tuple[Tensor, ...]) -> Tensor:
    if len(factors) == 3:
        return _rebuild_tucker(*factors)
    return factors[0] if len(factors) == 1 else factors[0] @ factors[1]


def _factor_size(factors: tuple[Tensor, ...]) -> tuple[int, int]:
    if len(factors) == 3:
        core, outputs, inputs = factors
        return outputs.shape[1], inputs.shape[1] * core[0, 0].numel()
    return factors[0].shape[0], factors[-1][0].numel()


@dataclass(frozen=True, eq=False, kw_only=True)
class Difference(Patch):
    """The full change, stored directly (keys diff, diff_b, w_norm, b_norm)."""

    difference: Tensor

    def to(self, device: torch.device) -> Patch:
        """Leaves the patch where it is, since a difference takes as much memory as the weight itself."""
        return self

    @property
    def size(self) -> tuple[int, int]:
        return self.difference.shape[0], self.difference[0].numel()

    def product(self, like: Tensor) -> Tensor:
        return self.difference.to(like)
