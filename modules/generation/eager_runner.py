"""Evaluates the UNet eagerly for the samplers; Stable-Fast's runner keeps the same three calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from modules.sampling.denoiser import Runner


class Control(Protocol):
    """Sums the residuals of every ControlNet in force for one evaluation; None when none is active at this time."""

    def __call__(self, x: Tensor, timestep: float, context: Tensor) -> tuple[Tensor, ...] | None: ...


@dataclass(frozen=True, kw_only=True)
class UNetInputs:
    """What stays the same over all steps of a batch of N pictures.

    context [R * N, S, D]: N rows for each part of the prompt, part by part, then (with guidance) N unconditional ones.
    alternatives: contexts of the same shape that a runner can be told to `switch` to between steps.
    concat [1 or N, 5, h, w]: mask and masked latent of inpainting checkpoints. control: see Control.
    """

    context: Tensor
    alternatives: tuple[Tensor, ...] = ()
    concat: Tensor | None = None
    control: Control | None = None


class UNetRunner(Runner, Protocol):
    """A runner of UNetInputs."""

    def switch(self, which: int) -> None:
        """From the next step on uses the context (0, as after `prepare`) or one of its alternatives (from 1)."""
        ...


class EagerRunner:
    """Runs the network as it is; `prepare` only remembers."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._inputs: UNetInputs | None = None
        self._context = torch.empty(0)

    def prepare(self, conditioning: UNetInputs, timesteps: Sequence[float]) -> None:
        self._inputs, self._context = conditioning, conditioning.context

    def switch(self, which: int) -> None:
        inputs = self._prepared()
        self._context = (inputs.context, *inputs.alternatives)[which]

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """x [N, C, h, w] -> the network's raw output [R * N, C, h, w], its rows in the order of the context's."""
        inputs, context = self._prepared(), self._context
        x = with_concat(x, inputs.concat).to(context.dtype)
        x = x.repeat(context.shape[0] // x.shape[0], 1, 1, 1)
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        control = inputs.control(x, timestep, context) if inputs.control else None
        return self._network(x, times, context, control)

    def _prepared(self) -> UNetInputs:
        if self._inputs is None:
            raise RuntimeError("prepare() comes before step()")
        return self._inputs


def with_concat(x: Tensor, concat: Tensor | None) -> Tensor:
    """x [N, C, h, w] with the extra channels [1 or N, K, h, w] behind its own."""
    return x if concat is None else torch.cat([x, concat.to(x).expand(x.shape[0], -1, -1, -1)], dim=1)
