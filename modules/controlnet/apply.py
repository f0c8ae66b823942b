"""Runs ControlNets alongside the UNet, and sums their residuals and the features of T2I-Adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.core.runner import TextInputs

ControlNetCall = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Sequence[Tensor]]
Residuals = tuple[Tensor, ...]

# Factor per block by which earlier (larger, less abstract) residuals are weakened in all modes except "balanced".
LAYER_DECAY = 0.825


@dataclass(frozen=True, kw_only=True, eq=False)
class InForce:
    """How much a network steers, and during which part of the sampling."""

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def active(self, progress: float) -> bool:
        return self.strength != 0 and self.end > 0 and self.start <= progress <= self.end


@dataclass(frozen=True, kw_only=True, eq=False)
class AppliedAdapter(InForce):
    """The features [N or 1, C, h, w] that a T2I-Adapter made of its hint. They are the same at every step."""

    features: Residuals

    def at(self, progress: float, rows: int) -> Residuals | None:
        """Returns the features for `rows` rows; returns None outside start..end."""
        if not self.active(progress):
            return None
        return tuple(_for_rows(_scaled(feature, self.strength), rows) for feature in self.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class AppliedControl(InForce):
    """One ControlNet with its hint [N or 1, C, H, W] in 0..1, strength, range and mode.

    The modes follow A1111's ControlNet extension. "balanced" affects both halves of guidance equally. "prompt" weakens
    residual i of 0..12 by 0.825 ** (12 - i). "control" does the same and skips the unconditional half, so that
    guidance amplifies the control.
    """

    network: ControlNetCall
    hint: Tensor
    mode: str = "balanced"
    in_channels: int = 4

    def residuals(
        self, x: Tensor, timestep: float, text: TextInputs, progress: float, *, conditional: int | None = None
    ) -> Residuals | None:
        """Returns one residual per input block, then one for the middle block; returns None outside start..end.

        The first `conditional` rows of x [R * N, C, h, w] belong to the prompt (default: all); extra channels of an
        inpainting UNet are ignored. The network must have x's dtype.
        """
        if not self.active(progress):
            return None
        rows = x.shape[0]
        used = min(rows, conditional) if self.mode == "control" and conditional is not None else rows
        x, context = x[:used, : self.in_channels], text.context[:used]
        vector = text.vector[:used] if text.vector is not None else None
        timesteps = torch.full((used,), timestep, dtype=torch.float32, device=x.device)
        outputs = self.network(x, self._hint_for(x), timesteps, context, vector)
        last = len(outputs) - 1
        return tuple(_padded(_scaled(out, self._weight(last - index)), rows) for index, out in enumerate(outputs))

    def _weight(self, layers_before_last: int) -> float:
        return self.strength * (1.0 if self.mode == "balanced" else LAYER_DECAY**layers_before_last)

    def _hint_for(self, x: Tensor) -> Tensor:
        hint = self.hint.to(x)
        if (hint.shape[-2], hint.shape[-1]) != (x.shape[-2] * 8, x.shape[-1] * 8):
            raise ValueError(f"a hint of {tuple(hint.shape[-2:])} pixels for a latent of {tuple(x.shape[-2:])} cells")
        return _for_rows(hint, x.shape[0])


def _for_rows(given: Tensor, rows: int) -> Tensor:
    """Repeats what is given for N pictures, or for all of them, as often as R * N rows need it."""
    if given.shape[0] == 1:
        return given.expand(rows, -1, -1, -1)
    return given.repeat(rows // given.shape[0], 1, 1, 1)


def _scaled(residual: Tensor, weight: float) -> Tensor:
    return residual if weight == 1 else residual * weight


def _padded(residual: Tensor, rows: int) -> Tensor:
    """Appends zeros for the rows that the network skipped."""
    missing = rows - residual.shape[0]
    return torch.cat([residual, residual.new_zeros(missing, *residual.shape[1:])]) if missing else residual


def sampling_progress(timestep: float, times: tuple[float, float] = (999.0, 0.0)) -> float:
    """Returns 0 at the noisiest training timestep and 1 at the cleanest; `times` are these two (EDM has others).

    ComfyUI interprets start and end percent the same way. They refer to noise levels, so they do not depend on the
    scheduler or the number of steps.
    """
    noisiest, cleanest = times
    return min(1.0, max(0.0, (noisiest - timestep) / (noisiest - cleanest)))


def sum_residuals(
    controls: Sequence[AppliedControl],
    x: Tensor,
    timestep: float,
    text: TextInputs,
    progress: float,
    *,
    conditional: int | None = None,
) -> Residuals | None:
    """Sums the residuals of all active ControlNets; returns None if none is active."""
    return _sum(control.residuals(x, timestep, text, progress, conditional=conditional) for control in controls)


def _sum(several: Iterable[Residuals | None]) -> Residuals | None:
    total: Residuals | None = None
    for tensors in several:
        if tensors is not None:
            total = tensors if total is None else tuple(a + b for a, b in zip(total, tensors, strict=True))
    return total


class ControlStack:
    """Combines ControlNets and T2I-Adapters into a function for the UNet's runner.

    The first `conditional` rows are the prompt's. `times` are the noisiest and the cleanest training timestep. It
    returns what `UNet.forward` takes as `control`.
    """

    def __init__(
        self,
        applied: Sequence[AppliedControl | AppliedAdapter],
        conditional: int,
        times: tuple[float, float] = (999.0, 0.0),
    ) -> None:
        self._controls = [one for one in applied if isinstance(one, AppliedControl)]
        self._adapters = [one for one in applied if isinstance(one, AppliedAdapter)]
        self._conditional = conditional
        self._times = times

    def active(self, timestep: float) -> tuple[bool, ...]:
        """Tells of each ControlNet and T2I-Adapter whether it steers at this timestep."""
        progress = sampling_progress(timestep, self._times)
        return tuple(one.active(progress) for one in (*self._controls, *self._adapters))

    def __call__(self, x: Tensor, timestep: float, text: TextInputs) -> Residuals | None:
        progress = sampling_progress(timestep, self._times)
        residuals = sum_residuals(self._controls, x, timestep, text, progress, conditional=self._conditional)
        features = _sum(adapter.at(progress, x.shape[0]) for adapter in self._adapters)
        return (*(residuals or ()), *(features or ())) or None
