"""Stable-Fast's view of one evaluation of a UNet: its tensors, its sizes, and the form it shares with other calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, TextInputs
from modules.stable_fast.report import OUTER
from modules.stable_fast.runtime.execution import in_program_layout

BINDINGS = {
    "x": "latent",
    "timesteps": "time",
    "context": "prompt",
    "vector": "prompt",
    "control": "step",
    "deep": "step",
}
COARSEST = 8  # the UNet halves the latent three times; other sizes than multiples of 8 get separate programs

PARTS = ("", OUTER)  # of the network, in keys and names

Key = tuple[Any, ...]


@dataclass(frozen=True)
class UNetCall:
    """x [N, C, h, w] of any dtype, one timestep, a text of R * N rows, residuals of all ControlNets [R * N, ...].

    The network computes in the context's dtype. With `outer`, it also returns its deep features or, if `deep` are
    given, runs only so many of its outermost blocks (see `UNet.forward`).
    """

    x: Tensor
    timestep: float
    text: TextInputs
    control: tuple[Tensor, ...] | None
    outer: int = 0
    deep: Tensor | None = None

    @property
    def halves(self) -> int:
        """The number of batch rows per latent: 2 with guidance."""
        return self.context.shape[0] // self.x.shape[0]

    @property
    def context(self) -> Tensor:
        return self.text.context

    @property
    def prompt(self) -> dict[str, Tensor]:
        """The inputs that change with the prompt only."""
        vector = self.text.vector
        return {"context": self.context} if vector is None else {"context": self.context, "vector": vector}

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        return self.context.dtype

    @cached_property
    def key(self) -> Key:
        """Everything that a captured graph depends on besides values."""
        return (self.sizes, self._part)

    @cached_property
    def sizes(self) -> Key:
        """What steps that use the same deep features have in common."""
        x, shapes = self.x, (each.shape for each in self.prompt.values())
        return (x.shape, *shapes, self.dtype, x.device, self._controls, self.outer)

    @property
    def form(self) -> Key:
        """Everything that a program depends on. It adapts to all sizes that are not included."""
        exact = () if self._adapts() else tuple(self.x.shape[2:])
        widths = tuple(each.shape[-1] for each in self.prompt.values())
        return (self.x.shape[1], widths, self.dtype, self.x.device, self._controls, exact, self.outer, self._part)

    @property
    def _part(self) -> str:
        return "" if self.deep is None else OUTER

    @property
    def _controls(self) -> int:
        """The number of control tensors tells ControlNets from T2I-Adapters, and from both together."""
        return len(self.control or ())

    def _adapts(self) -> bool:
        return all(size % COARSEST == 0 for size in self.x.shape[2:])

    def dims(self) -> dict[str, Any]:
        """Which dimensions may change without a new trace (see graph/sizes.py)."""
        dims: dict[str, Any] = {"x": self._feature_map(self.x), "timesteps": ("batch",)}
        dims["context"] = ("batch", "tokens", None)
        if self.text.vector is not None:
            dims["vector"] = ("batch", None)
        if self.control is not None:
            dims["control"] = tuple(self._feature_map(residual) for residual in self.control)
        if self.deep is not None:
            dims["deep"] = self._feature_map(self.deep)
        return dims

    def _feature_map(self, tensor: Tensor) -> tuple[str | None, ...]:
        if not self._adapts():
            return ("batch", None, None, None)
        scale = COARSEST * tensor.shape[2] // self.x.shape[2]
        return ("batch", None, f"{scale}*height", f"{scale}*width")

    def network_inputs(self) -> dict[str, Any]:
        """The call's inputs for the network itself, with x repeated for both halves of guidance."""
        x = torch.cat([self.x.to(self.dtype)] * self.halves)
        times = torch.full((x.shape[0],), self.timestep, dtype=torch.float32, device=x.device)
        inputs: dict[str, Any] = {"x": x, "timesteps": times, **self.prompt}
        if self.control is not None:
            inputs["control"] = self.control
        if self.deep is not None:
            inputs["deep"] = self.deep
        return {**inputs, "outer": self.outer} if self.outer else inputs

    def eager(self, network: nn.Module) -> Callable[[], Tensor]:
        """The network itself, applied to this call. The inputs are prepared now."""
        return partial(network, **self.network_inputs())

    def as_function(self, network: nn.Module) -> tuple[Callable[..., Any], list[Tensor]]:
        """The network as a function of tensors only, and the tensors of this call. It takes deep features last."""
        inputs = self.network_inputs()
        control = inputs.pop("control", ())
        others = {name: inputs.pop(name) for name in ("deep", "outer") if name in inputs}
        names = tuple(inputs)

        def function(*tensors: Tensor) -> Any:
            controls = tensors[len(names) : len(names) + len(control)]
            named = others | ({"deep": tensors[-1]} if "deep" in others else {})
            return network(**dict(zip(names, tensors, strict=False)), control=controls or None, **named)

        return function, [*inputs.values(), *control]

    @cached_property
    def moving(self) -> tuple[Tensor, ...]:
        """The inputs that change from step to step, in the form that the fused program takes."""
        return tuple(in_program_layout(tensor.to(self.dtype)) for tensor in self.moving_as_given)

    @property
    def moving_as_given(self) -> tuple[Tensor, ...]:
        """Like `moving`, for a captured graph, which converts inputs when it copies them in."""
        return (self.x, *(self.control or ()))

    def name(self) -> str:
        """The name of calls of these sizes in reports."""
        with_control = ", ControlNet" if self.control is not None else ""
        with_control += f", {self._part}" if self._part else ""
        kind = str(self.dtype).removeprefix("torch.")
        return f"{'x'.join(map(str, self.x.shape))} {kind}, {self.context.shape[0]} rows{with_control}"


def call_of(conditioning: Conditioning, which: int, x: Tensor, timestep: float) -> UNetCall:
    """The evaluation of x [N, C, h, w] with one of the conditioning's texts."""
    text = conditioning.texts[which]
    x = conditioning.with_concat(x)
    control = None
    if conditioning.control is not None:
        rows = torch.cat([x.to(text.context.dtype)] * (text.context.shape[0] // x.shape[0]))
        control = conditioning.control(rows, timestep, text)
    return UNetCall(x, timestep, text, control, conditioning.outer_blocks)
