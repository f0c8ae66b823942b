"""Runs a UNet for the samplers: prepare() once per batch of pictures, step() once per evaluation."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from modules.stable_fast.compiler import CANNOT_COMPILE, compile_program, forget_kept
from modules.stable_fast.config import StableFastConfig, level_in_force
from modules.stable_fast.graph.flatten import flatten_inputs
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.passes import passes_for
from modules.stable_fast.report import Report, ShapeReport
from modules.stable_fast.runtime.capture import GraphPool
from modules.stable_fast.runtime.capture_table import CaptureOn, GraphTable
from modules.stable_fast.runtime.execution import NO_GRAPHS, Execution, can_capture
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.weights import StaleWeightsError, WeightStore
from modules.stable_fast.store.cache import BROKEN
from modules.stable_fast.store.tuning import make_ready
from modules.stable_fast.unet_call import BINDINGS, Conditioning, Key, UNetCall

log = logging.getLogger(__name__)

MAX_KEPT_TIMESTEPS = 512


class StableFastRunner:
    """Compiles the network when it is first called in a new form; what it learned is kept from prompt to prompt."""

    def __init__(
        self, network: nn.Module, config: StableFastConfig | None = None, capture_on: CaptureOn | None = None
    ) -> None:
        self.config = config or StableFastConfig()
        self._capture_on = capture_on
        level, reason = level_in_force(self.config.level)
        self.report = Report(asked=self.config.level, level=level, reason=reason)
        self._network = network
        self._inputs: Conditioning | None = None
        self._timesteps: list[float] = []
        self._which = 0  # the context in force: of the inputs, or one of its alternatives
        self._stamp = 0  # grows whenever prompt and time stage have to be evaluated again
        self._graphs: GraphTable | None = None
        self._refused: set[Key] = set()  # shapes that memory does not suffice for
        self._reads_kept = True  # until a graph from disk has failed: it may be one that cannot be deleted
        self._forget()

    def _forget(self) -> None:
        if self._graphs is not None:
            self._graphs.release()
        self._graphs = None
        self._store = WeightStore(self._network)
        self._programs: dict[Key, Program] = {}
        self._executions: OrderedDict[Key, Execution] = OrderedDict()
        self._current: dict[Key, int] = {}
        self._warm: dict[Key, ShapeReport] = {}
        for shape in self.report.shapes.values():
            shape.steps.restart()

    def release(self) -> None:
        """Frees programs, prepared weights and graphs; the next step starts over."""
        self._inputs = None
        self._refused.clear()
        self._forget()

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        """Remembers what does not depend on the latent; it is evaluated at the first step, when the shape is known."""
        self._inputs, self._which = conditioning, 0
        self._timesteps = list(timesteps)
        self._stamp += 1
        for execution in self._executions.values():
            execution.forget_prompts()
        self.report.steps_per_image = len(self._timesteps)
        self._follow_moved_weights()

    def switch(self, which: int) -> None:
        """From the next step on uses the context (0, as after `prepare`) or one of its alternatives (from 1)."""
        self._which = which

    def _follow_moved_weights(self) -> None:
        try:
            self._store.check_addresses()
        except StaleWeightsError:
            log.info("Stable-Fast starts over, since weights were bound to other memory")
            self._forget()

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Follows weights that were changed in place (all of them, if not told which); nothing is traced again.

        Those that were bound to other memory are followed by starting over.
        """
        self._follow_moved_weights()
        self._store.refresh(changed)
        for execution in self._executions.values():
            execution.times.clear()
        self._stamp += 1
        self.report.counters.weights_refreshed += 1

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """x [N, C, h, w] -> the network's raw output [R * N, C, h, w], its rows in the order of the context's."""
        call = self._call(x, timestep)
        if not can_capture(call.x.device) and self.report.level in ("full", "graph"):
            self.report.lower("fused" if self.report.level == "full" else "off", NO_GRAPHS)
        steps = {"full": self._fused_step, "fused": self._fused_step, "graph": self._captured_eager_step}
        step = self._eager_step if call.key in self._refused else steps.get(self.report.level, self._eager_step)
        try:
            return self._timed(call, step)
        except torch.OutOfMemoryError:
            if step == self._eager_step:
                raise
            if self._graphs is not None:
                self._graphs.start_over()
            self._forget()
            self._refused.add(call.key)
            self._note_uncaptured(call, "off", "not enough memory")
        except torch.AcceleratorError:
            raise
        except BROKEN as error:
            kept = [program for program in self._new_programs(call) if program.kept_at and self._reads_kept]
            if not kept and not isinstance(error, CANNOT_COMPILE):
                raise
            result = self._eager_step(call)  # raises the network's own error when this is no call of it
            if kept:
                forget_kept(kept, error)
                self._reads_kept = False
                self._forget()
                return self.step(x, timestep)
            log.warning("Stable-Fast is off: %s", error)
            self.report.lower("off", str(error))
            self._forget()
            return result
        return self._timed(call, self._eager_step)

    def _new_programs(self, call: UNetCall) -> list[Program]:
        """The program of this call, as long as it has not run through once."""
        program = None if call.key in self._warm else self._programs.get(call.form)
        return [] if program is None else [program]

    def _call(self, x: Tensor, timestep: float) -> UNetCall:
        inputs = self._inputs
        if inputs is None:
            raise RuntimeError("prepare() comes before step()")
        context = (inputs.context, *inputs.alternatives)[self._which]
        if inputs.concat is not None:
            x = torch.cat([x, inputs.concat.to(x).expand(x.shape[0], -1, -1, -1)], dim=1)
        control = None
        if inputs.control is not None:
            rows = torch.cat([x.to(context.dtype)] * (context.shape[0] // x.shape[0]))
            control = inputs.control(rows, timestep, context)
        return UNetCall(x, timestep, context, control)

    def _timed(self, call: UNetCall, step: Callable[[UNetCall], Tensor]) -> Tensor:
        """Runs and times a step; the first of a shape counts as warm-up, with the compilation it brings."""
        warm = self._warm.get(call.key)
        if warm is not None:
            if warm is not self.report.latest:
                self.report.shape(str(call))
            with warm.steps.span(call.x.device):
                return step(call)
        started = time.perf_counter()
        result = step(call)
        _finish(call.x.device)
        self._warm[call.key] = shape = self.report.shape(str(call))
        shape.warm_up_seconds += time.perf_counter() - started
        if call.x.is_cuda and self.config.timed_against_eager:
            shape.eager_ms = self._time_eager(call)
        self._note_memory()
        return result

    def _fused_step(self, call: UNetCall) -> Tensor:
        key = call.key
        if key not in self._executions:
            execution = self._specialise(call)
            self._make_room()
            self._make_ready(execution, call)
            self._executions[key] = execution
        execution = self._executions[key]
        self._executions.move_to_end(key)
        self._make_current(key, execution, call)
        self.report.counters.fused_steps += 1
        if self.report.level == "fused":
            return execution.run(call.moving, execution.times.values(execution.times.row(call.timestep)))
        execution.hold_row(call.timestep)
        is_captured = self._graphs is not None and key in self._graphs
        return self._captured(call, execution.run_held, call.moving_as_given if is_captured else call.moving)

    def _make_ready(self, execution: Execution, call: UNetCall) -> None:
        """Has an implementation chosen for every op of the program, and its kernels compiled."""

        def run() -> None:
            self._evaluate(execution, call)
            execution.run(call.moving, execution.times.values(execution.times.row(call.timestep)))

        try:
            make_ready(run, call.x.device, self.config.tuning_seconds)
        finally:
            execution.times.clear()  # what was computed while kernels were only compiled

    def _captured(self, call: UNetCall, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        if self._graphs is None:
            self._graphs = GraphTable(
                (self._capture_on or GraphPool)(inputs[0].device),
                max_graphs=self.config.max_shapes,
                max_bytes=self.config.graph_memory_mib << 20,
            )
        result = self._graphs.run(call.key, function, inputs)
        self.report.counters.captures = self._graphs.captures
        if call.key in self._graphs.reasons:
            self._note_uncaptured(
                call, "fused" if self.report.level == "full" else "off", self._graphs.reasons[call.key]
            )
        else:
            self.report.counters.replays += 1
        return result

    def _note_uncaptured(self, call: UNetCall, level: str, reason: str) -> None:
        """This shape alone runs at a lower level."""
        shape = self.report.shape(str(call))
        if not shape.reason:
            log.warning("Stable-Fast runs %s at level %s: %s", call, level, reason)
            shape.steps.restart()
        shape.level, shape.reason = level, reason

    def _make_current(self, key: Key, execution: Execution, call: UNetCall) -> None:
        """Evaluates prompt and time stage if the conditioning, the schedule or weights changed since last time."""
        if self._current.get(key) != self._stamp:
            execution.times.trim(MAX_KEPT_TIMESTEPS)
            self._evaluate(execution, call)
            self._current[key] = self._stamp
        elif call.timestep not in execution.times:
            execution.times.extend([call.timestep], call.x.device)
        execution.switch_prompt(self._which, {"context": call.context})

    def _evaluate(self, execution: Execution, call: UNetCall) -> None:
        execution.times.extend([*self._timesteps, call.timestep], call.x.device)
        execution.set_prompt({"context": call.context}, self._which)

    def _specialise(self, call: UNetCall) -> Execution:
        """The program for this form of call, traced if there is none yet, at these sizes."""
        inputs = call.network_inputs()
        if call.form not in self._programs:
            with torch.inference_mode(mode=False), torch.no_grad():
                program, compiled = compile_program(
                    self._store,
                    inputs,
                    bindings=BINDINGS,
                    dims=call.dims(),
                    passes=passes_for(self.report.level, call.x.device),
                    reads_kept=self._reads_kept,
                )
            self._programs[call.form] = program
            self.report.programs.append(compiled)
            self.report.counters.traces += 1
        program = self._programs[call.form]
        return Execution(program, program.measure(flatten_inputs(inputs)), call.halves)

    def _make_room(self) -> None:
        while len(self._executions) >= self.config.max_shapes:
            oldest, _ = self._executions.popitem(last=False)
            self._current.pop(oldest, None)
            self._warm.pop(oldest, None)
            if self._graphs is not None:
                self._graphs.drop(oldest)

    def _captured_eager_step(self, call: UNetCall) -> Tensor:
        """Level "graph": the network's own kernels, replayed; the same bits as eager."""
        inputs = call.network_inputs()
        self._store.watch_all()
        tensors = [inputs["x"], inputs["timesteps"], inputs["context"], *(call.control or ())]

        def network(x: Tensor, times: Tensor, context: Tensor, *control: Tensor) -> Tensor:
            return self._network(x, times, context, control or None)

        return self._captured(call, network, tensors)

    def _eager_step(self, call: UNetCall) -> Tensor:
        result = self._network(**call.network_inputs())
        self.report.counters.eager_steps += 1
        return result

    def _time_eager(self, call: UNetCall) -> float | None:
        """Milliseconds of an eager step, to compare with; None when memory is too short for it."""
        inputs = call.network_inputs()
        try:
            self._network(**inputs)
            _finish(call.x.device)
            started = time.perf_counter()
            self._network(**inputs)
        except torch.OutOfMemoryError:
            return None
        _finish(call.x.device)
        return (time.perf_counter() - started) * 1000

    def _note_memory(self) -> None:
        self.report.weights_mib = self._store.owned_bytes() / 2**20
        self.report.graph_mib = self._graphs.bytes / 2**20 if self._graphs is not None else 0.0
        self.report.choices = {f"{name} {key}": choice for (name, key), choice in CHOICES.used.items()}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
