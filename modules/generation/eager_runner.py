"""Evaluates the UNet eagerly for the samplers, the counterpart of Stable-Fast's compiled runner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, Runner


class EagerRunner(Runner):
    """Runs the network unchanged; `prepare` only stores the conditioning."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._conditioning: Conditioning | None = None
        self._context = torch.empty(0)

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        self._conditioning, self._context = conditioning, conditioning.context

    def switch(self, which: int) -> None:
        conditioning = self._prepared()
        self._context = (conditioning.context, *conditioning.alternatives)[which]

    def step(self, x: Tensor, timestep: float) -> Tensor:
        conditioning, context = self._prepared(), self._context
        x = conditioning.with_concat(x).to(context.dtype)
        x = x.repeat(context.shape[0] // x.shape[0], 1, 1, 1)
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        control = conditioning.control(x, timestep, context) if conditioning.control else None
        return self._network(x, times, context, control)

    def _prepared(self) -> Conditioning:
        if self._conditioning is None:
            raise RuntimeError("prepare() comes before step()")
        return self._conditioning
