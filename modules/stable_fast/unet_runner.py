"""Runs a UNet for the samplers: prepare() once per batch of pictures, step() once per evaluation."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modules.core.errors import OptionsError
from modules.core.runner import CompiledRunner, Conditioning
from modules.stable_fast.calibration.error import step_error
from modules.stable_fast.compiler import CANNOT_COMPILE
from modules.stable_fast.config import Level, StableFastConfig
from modules.stable_fast.engine import Engine
from modules.stable_fast.graph.flatten import flatten_inputs
from modules.stable_fast.runtime.capture_table import CaptureOn
from modules.stable_fast.runtime.deep_features import DeepFeatures
from modules.stable_fast.runtime.execution import Execution
from modules.stable_fast.runtime.timing import milliseconds
from modules.stable_fast.runtime.trial import Trial
from modules.stable_fast.store.cache import BROKEN
from modules.stable_fast.unet_call import BINDINGS, PARTS, Key, UNetCall, call_of

log = logging.getLogger(__name__)

MAX_KEPT_TIMESTEPS = 512
NO_MEMORY = "not enough memory"


class StableFastRunner(CompiledRunner):
    """Compiles the network when it is first called in a new form, and keeps the programs from prompt to prompt."""

    def __init__(
        self, network: nn.Module, config: StableFastConfig | None = None, capture_on: CaptureOn | None = None
    ) -> None:
        self._network = network
        self._engine = Engine(network, config or StableFastConfig(), BINDINGS, capture_on)
        self.report = self._engine.report
        self._inputs: Conditioning | None = None
        self._timesteps: list[float] = []
        self._which = 0  # the current context: 0, or an alternative
        self._may_reuse = False
        self._deep = DeepFeatures()
        self._refused: set[Key] = set()  # sizes for which there is not enough memory
        self._trials: dict[Key, Trial] = {}  # by sizes, on devices without kernels of ours

    def release(self) -> None:
        self._inputs = None
        self._refused.clear()
        self._engine.forget()
        self._deep.release()

    def prepare(self, conditioning: Conditioning, timesteps: Sequence[float]) -> None:
        self._inputs, self._which, self._may_reuse = conditioning, 0, False
        self._deep.forget()
        self._timesteps = list(timesteps)
        self._engine.outdate()  # evaluated at the first step, when the shape is known
        self._engine.store.scales.expect(self._timesteps)
        self.report.steps_per_image = len(self._timesteps)
        self._engine.follow_moved_weights()

    def switch(self, which: int) -> None:
        self._which = which

    def reuse(self, *, is_allowed: bool) -> None:
        self._may_reuse = is_allowed

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        self._deep.forget()
        self._engine.refresh_weights(changed)

    def step(self, x: Tensor, timestep: float) -> Tensor:
        if self._inputs is None:
            raise RuntimeError("prepare() comes before step()")
        call = call_of(self._inputs, self._which, x, timestep)
        if not call.outer:
            return self._run(call)
        made_for = (self._which, call.sizes)
        if self._may_reuse and self._deep.made_for == made_for:
            return self._run(replace(call, deep=self._deep[call.sizes]))
        self._deep.forget()
        result = self._run(call)
        self._deep.made_for = made_for
        for sizes in self._deep.drop_oldest(self._engine.config.max_shapes):
            for part in PARTS:
                self._engine.drop((sizes, part))
        return result

    def _run(self, call: UNetCall) -> Tensor:
        self._engine.settle(call.device)
        step = self._step_for(call)
        try:
            result = self._engine.timed(call, step)
            if step == self._fused_step:
                self._compare_with_eager(call)
            return result
        except torch.OutOfMemoryError:
            if step == self._eager_step or self._engine.store.is_away:
                raise
            self._engine.forget_shared()
            self._refused.add(call.key)
            log.warning("Stable-Fast runs %s at level off: %s", call.name(), NO_MEMORY)
            self.report.lower_shape(call.name(), Level.OFF, NO_MEMORY)
        except torch.AcceleratorError:
            raise
        except BROKEN as error:
            is_suspect = self._engine.suspects_kept(call.form, is_proven=call.key in self._engine.warm)
            if not is_suspect and not isinstance(error, CANNOT_COMPILE):
                raise
            result = self._eager_step(call)  # raises the network's own error if the call is invalid
            if is_suspect:
                self._engine.discard_kept(call.form, error)
                return self._run(call)
            self._engine.turn_off(str(error))
            return result
        return self._engine.timed(call, self._eager_step)

    def _step_for(self, call: UNetCall) -> Callable[[UNetCall], Tensor]:
        level = self.report.level
        if level.is_off or call.key in self._refused:
            return self._eager_step
        if call.key in self._trials and self._trials[call.key].lost:
            return self._eager_step
        return self._fused_step if level.fused else self._captured_eager_step

    def _fused_step(self, call: UNetCall) -> Tensor:
        execution = self._engine.execution(call.key) or self._new_execution(call)
        self._make_current(execution, call)
        self.report.counters.fused_steps += 1
        if not self._engine.captures_now:
            known = execution.known_at(call.timestep)
            result = self._with_deep(call, lambda *moving: execution.run(moving, known))(*call.moving)
            if call.timestep in self._timesteps[-1:]:  # the picture's last step
                self._settle_scales(call, result)
            return result
        execution.hold_row(call.timestep)
        # A graph converts its inputs when it copies them in.
        moving = call.moving_as_given if self._engine.has_graph(call.key) else call.moving
        return self._captured(call, execution.run_held, moving)

    def _settle_scales(self, call: UNetCall, result: Tensor) -> None:
        """Ends the search for scales, if there is one, with a look at how far the step is from the network's own."""
        scales = self._engine.store.scales
        if not scales.are_known:
            scales.settle(step_error(result, call.eager(self._network)))
            self.report.precision_error = scales.error

    def _new_execution(self, call: UNetCall) -> Execution:
        """The program for this form of call at these sizes, ready to run."""
        inputs = call.network_inputs()
        program = self._engine.program(call.form, inputs, call.dims())
        execution = self._engine.new_execution(program, program.measure(flatten_inputs(inputs)), call.halves)

        def run() -> None:
            execution.forget_times()  # a run that only compiles leaves anything in them
            execution.set_prompt(call.prompt, self._which)
            self._tabulate(execution, call)
            deep = () if call.deep is None else (call.deep,)
            execution.run((*call.moving, *deep), execution.known_at(call.timestep))

        try:
            self._engine.make_ready(run, call.device, probes=True)
        finally:
            execution.forget_times()
        self.report.precision_error = self._engine.store.scales.error
        self._engine.keep(call.key, execution)
        self._engine.capture_prompts(call.key, execution)
        return execution

    def _make_current(self, execution: Execution, call: UNetCall) -> None:
        """Runs the stages before the step if the conditioning, the schedule or weights changed since last time."""
        if execution.stamp != self._engine.stamp:
            execution.trim_times(MAX_KEPT_TIMESTEPS)
        execution.show_prompt(self._engine.stamp, call.prompt, self._which)
        if not execution.knows(call.timestep):
            self._tabulate(execution, call)

    def _tabulate(self, execution: Execution, call: UNetCall) -> None:
        execution.tabulate([*self._timesteps, call.timestep], call.device)

    def _compare_with_eager(self, call: UNetCall) -> None:
        """Without CUDA, fused operations run in plain PyTorch; these sizes then run eagerly if that is faster."""
        config = self._engine.config
        if (
            call.device.type == "cuda"
            or self.report.level.captured
            or config.emulated
            or not config.timed_against_eager
        ):
            return
        fused_ms, trial = self._engine.warm[call.key].steps.latest_ms(), self._trials.setdefault(call.key, Trial())
        if fused_ms is None or not trial.wants_eager(fused_ms):
            return
        eager_ms = milliseconds(call.eager(self._network), call.device, calls=1)
        trial.add(fused_ms, math.inf if eager_ms is None else eager_ms)
        if trial.lost:
            log.info("Stable-Fast runs %s at level off: %s", call.name(), trial.reason)
            self.report.lower_shape(call.name(), Level.OFF, trial.reason)

    def _captured_eager_step(self, call: UNetCall) -> Tensor:
        """Level "graph": replays the network's own kernels, with bitwise the same result as eager."""
        self._engine.store.watch_all()
        return self._captured(call, *call.as_function(self._network))

    def _captured(self, call: UNetCall, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Tensor:
        step = self._with_deep(call, function)
        if call.outer and call.sizes not in self._deep:
            step(*inputs)  # makes the buffer, which must not be made while a graph is captured
        return self._engine.captured(call.key, call.name, step, inputs)

    def _with_deep(self, call: UNetCall, function: Callable[..., Any]) -> Callable[..., Tensor]:
        """The step, which keeps its deep features, or takes those that are kept."""
        if not call.outer:
            return function
        wrapped = self._deep.keeping if call.deep is None else self._deep.taking
        return wrapped(call.sizes, function)

    def _eager_step(self, call: UNetCall) -> Tensor:
        if self._engine.store.is_away:
            reason = self.report.reason or "it cannot be compiled"
            raise OptionsError(
                f"This network cannot run with {self.report.precision} ({reason}): choose another "
                "--stable-fast-precision."
            )
        function, inputs = call.as_function(self._network)
        result = self._with_deep(call, function)(*inputs)
        self.report.counters.eager_steps += 1
        return result
