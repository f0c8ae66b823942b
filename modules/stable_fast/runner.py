"""Runs a UNet for the samplers: prepare() once per batch of pictures, step() once per evaluation."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from modules.stable_fast.compiler import compile_program
from modules.stable_fast.config import StableFastConfig, level_in_force
from modules.stable_fast.execution import Execution, channels_last
from modules.stable_fast.passes import PASSES
from modules.stable_fast.program import Program
from modules.stable_fast.report import Report
from modules.stable_fast.sizes import SizeError
from modules.stable_fast.trace import TraceError
from modules.stable_fast.verify import VerifyError
from modules.stable_fast.weights import StaleWeightsError, WeightStore

log = logging.getLogger(__name__)

BINDINGS = {"x": "latent", "timesteps": "time", "context": "prompt", "control": "step"}
COARSEST = 8  # the UNet halves the latent three times: other sizes get a program of their own
MAX_KEPT_TIMESTEPS = 512
CANNOT_COMPILE = (TraceError, VerifyError, SizeError)

Key = tuple[Any, ...]


class Control(Protocol):
    """The summed residuals of all ControlNets for this evaluation, or None when none is active."""

    def __call__(self, x: Tensor, timestep: float, context: Tensor) -> tuple[Tensor, ...] | None: ...


class Conditioning(Protocol):
    """What stays the same over all steps: context [R * N, S, D], extra input channels [N, C, h, w], ControlNets."""

    @property
    def context(self) -> Tensor: ...

    @property
    def concat(self) -> Tensor | None: ...

    @property
    def control(self) -> Control | None: ...


class StableFastRunner:
    """Compiles the network lazily, once per form of call; what it learned is kept from prompt to prompt."""

    def __init__(self, network: nn.Module, config: StableFastConfig | None = None) -> None:
        self.config = config or StableFastConfig()
        level, reason = level_in_force(self.config.level)
        self.report = Report(asked=self.config.level, level=level, reason=reason)
        self._network = network
        self._inputs: Conditioning | None = None
        self._timesteps: list[float] = []
        self._stamp = 0  # grows whenever prompt and time stage have to be evaluated again
        self._forget()

    def _forget(self) -> None:
        self._store = WeightStore(self._network)
        self._programs: dict[Key, Program] = {}
        self._executions: OrderedDict[Key, Execution] = OrderedDict()
        self._current: dict[Key, int] = {}

    def release(self) -> None:
        """Frees programs, prepared weights and graphs; the next step starts over."""
        self._inputs = None
        self._forget()

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        """Remembers what does not depend on the latent; it is evaluated at the first step, when the shape is known."""
        self._inputs = conditioning
        self._timesteps = list(timesteps)
        self._stamp += 1
        self.report.steps_per_image = len(self._timesteps)
        try:
            self._store.check_addresses()
        except StaleWeightsError as error:
            log.info("Stable-Fast starts over: %s", error)
            self._forget()

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Follows weights that were changed in place (all of them, if not told which); nothing is traced again."""
        self._store.refresh(changed)
        self._stamp += 1
        self._executions_forget_times()
        self.report.counters.weights_refreshed += 1

    def _executions_forget_times(self) -> None:
        for execution in self._executions.values():
            execution.times.clear()

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """x [N, C, h, w] -> the network's raw output [R * N, C, h, w], conditional rows first."""
        inputs = self._inputs
        if inputs is None:
            raise RuntimeError("prepare() comes before step()")
        context = inputs.context
        if inputs.concat is not None:
            x = torch.cat([x, inputs.concat.to(x)], dim=1)
        x = x.to(context.dtype)
        halves = context.shape[0] // x.shape[0]
        control = inputs.control(torch.cat([x] * halves), timestep, context) if inputs.control else None
        if self.report.level in ("fused", "full"):
            try:
                return self._fused_step(x, timestep, context, control)
            except torch.OutOfMemoryError as error:
                self._lower("off", f"not enough memory: {error}")
        return self._eager_step(x, timestep, context, control)

    def _fused_step(self, x: Tensor, timestep: float, context: Tensor, control: tuple[Tensor, ...] | None) -> Tensor:
        key: Key = (tuple(x.shape), tuple(context.shape), x.dtype, x.device, control is not None)
        if key in self._executions:
            self._executions.move_to_end(key)
            with self.report.steps.span(x.device):
                return self._execute(key, x, timestep, context, control)
        started = time.perf_counter()
        try:
            self._executions[key] = self._specialise(x, context, control)
            result = self._execute(key, x, timestep, context, control)
        except (*CANNOT_COMPILE, NotImplementedError) as error:
            self._lower("off", str(error))
            return self._eager_step(x, timestep, context, control)
        _finish(x.device)
        self.report.warm_up_seconds += time.perf_counter() - started
        self._note_shape(x, context, control)
        return result

    def _execute(
        self, key: Key, x: Tensor, timestep: float, context: Tensor, control: tuple[Tensor, ...] | None
    ) -> Tensor:
        execution = self._executions[key]
        like = torch.empty((), dtype=torch.float32, device=x.device)
        if self._current.get(key) != self._stamp:
            execution.times.trim(MAX_KEPT_TIMESTEPS)
            execution.times.extend(self._timesteps, like)
            execution.set_prompt({"context": context})
            self._current[key] = self._stamp
        execution.times.extend([timestep], like)
        moving = [channels_last(tensor) for tensor in (x, *(control or ()))]
        self.report.counters.fused_steps += 1
        return execution.run(moving, execution.times.values(execution.times.row(timestep)))

    def _specialise(self, x: Tensor, context: Tensor, control: tuple[Tensor, ...] | None) -> Execution:
        """The program for this form of call, at these sizes."""
        while len(self._executions) >= self.config.max_shapes:
            oldest, _ = self._executions.popitem(last=False)
            self._current.pop(oldest, None)
        halves = context.shape[0] // x.shape[0]
        call = self._example(torch.cat([x] * halves), context, control)
        dims = call_dims(x, control)
        exact = tuple(x.shape[2:]) if dims["x"][2] is None else ()
        form: Key = (x.shape[1], context.shape[2], x.dtype, x.device, control is not None, exact)
        if form not in self._programs:
            with torch.inference_mode(mode=False), torch.no_grad():
                program, compiled = compile_program(self._store, call, bindings=BINDINGS, dims=dims, passes=PASSES)
            self._programs[form] = program
            self.report.programs.append(compiled)
            self.report.counters.traces += 1
        program = self._programs[form]
        sizes = program.measure({name: value for name, value in call.items() if isinstance(value, Tensor)})
        return Execution(program, sizes, halves)

    def _example(self, x: Tensor, context: Tensor, control: tuple[Tensor, ...] | None) -> dict[str, Any]:
        times = torch.zeros(x.shape[0], dtype=torch.float32, device=x.device)
        call: dict[str, Any] = {"x": x, "timesteps": times, "context": context}
        return call if control is None else {**call, "control": control}

    def _eager_step(self, x: Tensor, timestep: float, context: Tensor, control: tuple[Tensor, ...] | None) -> Tensor:
        x = torch.cat([x] * (context.shape[0] // x.shape[0]))
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        self.report.counters.eager_steps += 1
        with self.report.steps.span(x.device):
            return self._network(x, times, context, control)

    def _lower(self, level: str, reason: str) -> None:
        log.warning("Stable-Fast continues at level %s: %s", level, reason)
        self.report.lower(level, reason)
        self._forget()

    def _note_shape(self, x: Tensor, context: Tensor, control: tuple[Tensor, ...] | None) -> None:
        with_control = ", ControlNet" if control is not None else ""
        self.report.shapes.append(f"{'x'.join(map(str, x.shape))}, {context.shape[0]} rows{with_control}")
        self.report.weights_mib = self._store.owned_bytes() / 2**20


def call_dims(x: Tensor, control: tuple[Tensor, ...] | None) -> dict[str, Any]:
    """Which dimensions of a UNet call may change without a new trace."""
    named = all(size % COARSEST == 0 for size in x.shape[2:])

    def feature_map(tensor: Tensor) -> tuple[str | None, ...]:
        if not named:
            return ("batch", None, None, None)
        scale = COARSEST * tensor.shape[2] // x.shape[2]
        return ("batch", None, f"{scale}*height", f"{scale}*width")

    dims: dict[str, Any] = {"x": feature_map(x), "timesteps": ("batch",), "context": ("batch", "tokens", None)}
    return dims if control is None else {**dims, "control": tuple(feature_map(tensor) for tensor in control)}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
