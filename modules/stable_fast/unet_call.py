"""One evaluation of a UNet as Stable-Fast sees it: its tensors, what they have in common with other calls, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.stable_fast.runtime.execution import channels_last

BINDINGS = {"x": "latent", "timesteps": "time", "context": "prompt", "control": "step"}
COARSEST = 8  # the UNet halves the latent three times; a size that is no multiple gets a program of its own

Key = tuple[Any, ...]


class Control(Protocol):
    """The summed residuals of all ControlNets for this evaluation, or None when none is active."""

    def __call__(self, x: Tensor, timestep: float, context: Tensor) -> tuple[Tensor, ...] | None: ...


class Conditioning(Protocol):
    """What stays the same over all steps: context [R * N, S, D] and others of its shape to switch to between steps,
    extra input channels [1 or N, K, h, w], controls."""

    @property
    def context(self) -> Tensor: ...

    @property
    def alternatives(self) -> tuple[Tensor, ...]: ...

    @property
    def concat(self) -> Tensor | None: ...

    @property
    def control(self) -> Control | None: ...


@dataclass(frozen=True)
class UNetCall:
    """x [N, C, h, w] of any type, one timestep, context [R * N, S, D], residuals of ControlNets [R * N, ...].

    The network computes in the context's type.
    """

    x: Tensor
    timestep: float
    context: Tensor
    control: tuple[Tensor, ...] | None

    @property
    def halves(self) -> int:
        """How many rows of the batch each latent gets: 2 with guidance."""
        return self.context.shape[0] // self.x.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.context.dtype

    @cached_property
    def key(self) -> Key:
        """What a captured graph depends on, besides values."""
        x = self.x
        return (x.shape, self.context.shape, self.dtype, x.device, self.control is not None)

    @property
    def form(self) -> Key:
        """What a program depends on: the sizes it can adapt to are left out."""
        exact = () if self._adapts() else tuple(self.x.shape[2:])
        return (self.x.shape[1], self.context.shape[2], self.dtype, self.x.device, self.control is not None, exact)

    def _adapts(self) -> bool:
        return all(size % COARSEST == 0 for size in self.x.shape[2:])

    def dims(self) -> dict[str, Any]:
        """Which dimensions may change without a new trace (see sizes.py)."""
        dims: dict[str, Any] = {"x": self._feature_map(self.x), "timesteps": ("batch",)}
        dims["context"] = ("batch", "tokens", None)
        if self.control is not None:
            dims["control"] = tuple(self._feature_map(residual) for residual in self.control)
        return dims

    def _feature_map(self, tensor: Tensor) -> tuple[str | None, ...]:
        if not self._adapts():
            return ("batch", None, None, None)
        scale = COARSEST * tensor.shape[2] // self.x.shape[2]
        return ("batch", None, f"{scale}*height", f"{scale}*width")

    def network_inputs(self) -> dict[str, Any]:
        """The call as the network itself takes it, x repeated for both halves of guidance."""
        x = torch.cat([self.x.to(self.dtype)] * self.halves)
        times = torch.full((x.shape[0],), self.timestep, dtype=torch.float32, device=x.device)
        inputs: dict[str, Any] = {"x": x, "timesteps": times, "context": self.context}
        return inputs if self.control is None else {**inputs, "control": self.control}

    @cached_property
    def moving(self) -> tuple[Tensor, ...]:
        """What changes from step to step, as the fused program takes it."""
        return tuple(channels_last(tensor.to(self.dtype)) for tensor in self.moving_as_given)

    @property
    def moving_as_given(self) -> tuple[Tensor, ...]:
        """The same for a captured graph, which copies and thereby converts them."""
        return (self.x, *(self.control or ()))

    def __str__(self) -> str:
        with_control = ", ControlNet" if self.control is not None else ""
        kind = str(self.dtype).removeprefix("torch.")
        return f"{'x'.join(map(str, self.x.shape))} {kind}, {self.context.shape[0]} rows{with_control}"
