"""Evaluates the UNet eagerly for the samplers, the counterpart of Stable-Fast's compiled runner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, Runner, TextInputs


class EagerRunner(Runner):
    """Runs the network unchanged; `prepare` only stores the conditioning."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._conditioning: Conditioning | None = None
        self._text: TextInputs | None = None

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        self._conditioning, self._text = conditioning, conditioning.texts[0]

    def switch(self, which: int) -> None:
        conditioning, _ = self._prepared()
        self._text = conditioning.texts[which]

    def reuse(self, *, is_allowed: bool) -> None:
        """Reuses nothing: only Stable-Fast skips blocks."""

    def step(self, x: Tensor, timestep: float) -> Tensor:
        conditioning, text = self._prepared()
        x = conditioning.with_concat(x).to(text.context.dtype)
        x = x.repeat(text.context.shape[0] // x.shape[0], 1, 1, 1)
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        control = conditioning.control(x, timestep, text) if conditioning.control else None
        return self._network(x, times, text.context, control, text.vector)

    def _prepared(self) -> tuple[Conditioning, TextInputs]:
        if self._conditioning is None or self._text is None:
            raise RuntimeError("prepare() comes before step()")
        return self._conditioning, self._text
