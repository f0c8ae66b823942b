"""Evaluates the UNet eagerly for the samplers; Stable-Fast's runner keeps the same two calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Control(Protocol):
    """Sums the residuals of every ControlNet in force for one evaluation; None when none is active at this time."""

    def __call__(self, x: Tensor, timestep: float, context: Tensor) -> tuple[Tensor, ...] | None: ...


@dataclass(frozen=True, kw_only=True)
class UNetInputs:
    """What stays the same over all steps of a batch of N pictures.

    context [R * N, S, D]: N conditional rows, then (R = 2) N unconditional ones.
    concat [1 or N, 5, h, w]: mask and masked latent of inpainting checkpoints. control: see Control.
    """

    context: Tensor
    concat: Tensor | None = None
    control: Control | None = None


class EagerRunner:
    """Runs the network as it is; `prepare` only remembers."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._inputs: UNetInputs | None = None

    def prepare(self, conditioning: UNetInputs, timesteps: Sequence[float]) -> None:
        self._inputs = conditioning

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """x [N, C, h, w] -> the network's raw output [R * N, C, h, w], conditional rows first."""
        inputs = self._inputs
        if inputs is None:
            raise RuntimeError("prepare() comes before step()")
        context = inputs.context
        x = with_concat(x, inputs.concat).to(context.dtype)
        x = x.repeat(context.shape[0] // x.shape[0], 1, 1, 1)
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        control = inputs.control(x, timestep, context) if inputs.control else None
        return self._network(x, times, context, control)


def with_concat(x: Tensor, concat: Tensor | None) -> Tensor:
    """x [N, C, h, w] with the extra channels [1 or N, K, h, w] behind its own."""
    return x if concat is None else torch.cat([x, concat.to(x).expand(x.shape[0], -1, -1, -1)], dim=1)
