"""The contract between sampling and whatever runs a UNet for it: eagerly, or compiled by Stable-Fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Control(Protocol):
    """Sums the residuals of all ControlNets for one evaluation; None when none is active at this time.

    x [R * N, C, h, w] and context [R * N, S, D] are what the network is given. Each residual is [R * N, ...].
    """

    def __call__(self, x: Tensor, timestep: float, context: Tensor) -> tuple[Tensor, ...] | None: ...


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a network is shown beside the latent; it stays the same over all steps of a batch of N pictures.

    `context` [R * N, S, D]: N rows for each part of the prompt, part by part, then (with guidance) N unconditional
    ones. S counts tokens, D is the width of the text encoder.
    `alternatives`: contexts of the same shape, which a runner can be told to `switch` to between steps.
    `concat` [1 or N, K, h, w]: extra channels of the latent, such as mask and masked picture of inpainting checkpoints.
    `control`: see Control.
    """

    context: Tensor
    alternatives: tuple[Tensor, ...] = ()
    concat: Tensor | None = None
    control: Control | None = None

    def with_concat(self, x: Tensor) -> Tensor:
        """x [N, C, h, w] with the extra channels behind its own."""
        if self.concat is None:
            return x
        return torch.cat([x, self.concat.to(x).expand(x.shape[0], -1, -1, -1)], dim=1)


class Runner(Protocol):
    """Evaluates a UNet, many times for each conditioning."""

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        """Takes everything that does not depend on the latent, once for each batch.

        `timesteps` are those that will be evaluated, as far as they are known; others may still come.
        """
        ...

    def switch(self, which: int) -> None:
        """From the next step on uses the context (0, as after `prepare`) or one of its alternatives (from 1)."""
        ...

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """The network's raw output [R * N, C, h, w] for x [N, C, h, w], its rows in the order of the context's.

        Raises RuntimeError before the first `prepare`.
        """
        ...


RunnerFor = Callable[[nn.Module], Runner]


class CompiledRunner(Runner, Protocol):
    """A runner that keeps what it made from the network's weights."""

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Follows weights that were changed in place (all of them, if not told which), or bound to other memory."""
        ...

    def release(self) -> None:
        """Frees everything that it keeps; the next step starts over."""
        ...
