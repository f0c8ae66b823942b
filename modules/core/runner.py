"""The interface between sampling and the code that runs the UNet, either eagerly or compiled by Stable-Fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TextInputs:
    """What the network reads of the prompt: context [R * N, S, D] and, in SDXL, vector [R * N, V].

    N rows for each part of the prompt, part by part, then (with guidance) N unconditional rows. S is the number of
    tokens, D the width of the text encoders. The vector holds the pooled text and the embedded picture sizes.
    """

    context: Tensor
    vector: Tensor | None = None


class Control(Protocol):
    """Sums the residuals of all ControlNets for one evaluation; returns None if none are active at this timestep.

    x [R * N, C, h, w] and `text` (R * N rows) are the network's inputs. Each residual is [R * N, ...].
    """

    def __call__(self, x: Tensor, timestep: float, text: TextInputs) -> tuple[Tensor, ...] | None: ...


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """The network's inputs besides the latent; they stay the same over all steps of a batch of N pictures.

    `texts`: the distinct texts of the batch, all of the same shapes, among which a runner can `switch` between steps.
    `concat` [1 or N, K, h, w]: extra latent channels, such as the mask and masked picture of inpainting checkpoints.
    `control`: see Control. With `outer_blocks`, steps that `Runner.reuse` allows may run only so many of the network's
    outermost blocks.
    """

    texts: tuple[TextInputs, ...]
    concat: Tensor | None = None
    control: Control | None = None
    outer_blocks: int = 0

    def with_concat(self, x: Tensor) -> Tensor:
        """Returns x [N, C, h, w] with the extra channels appended."""
        if self.concat is None:
            return x
        return torch.cat([x, self.concat.to(x).expand(x.shape[0], -1, -1, -1)], dim=1)


class Runner(Protocol):
    """Evaluates a UNet, many times per conditioning."""

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        """Receives everything that does not depend on the latent, once per batch.

        `timesteps` are the timesteps expected to be evaluated; the sampler may still use others.
        """
        ...

    def switch(self, which: int) -> None:
        """Selects one of the conditioning's texts (0 after `prepare`) for all following steps."""
        ...

    def reuse(self, *, is_allowed: bool) -> None:
        """Tells whether the following steps may use deep features of the last full step (not after `prepare`).

        They do so only if the features were made for the same pictures, text, sizes and weights.
        """
        ...

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """Returns the network's raw output [R * N, C, h, w] for x [N, C, h, w], with rows in the context's order.

        Raises RuntimeError before the first `prepare`.
        """
        ...


RunnerFor = Callable[[nn.Module], Runner]


class CompiledRunner(Runner, Protocol):
    """A runner that keeps data derived from the network's weights."""

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Updates the runner after weights (all if `changed` is None) were changed in place or moved in memory."""
        ...

    def release(self) -> None:
        """Frees everything the runner keeps; the next step starts from scratch."""
        ...
