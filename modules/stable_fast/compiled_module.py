"""Compiles any nn.Module: text encoders, VAE, ControlNets, and other people's networks (other_networks.py)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from modules.core.device import lacks_memory
from modules.stable_fast.compiler import why_eager
from modules.stable_fast.config import StableFastConfig
from modules.stable_fast.engine import Engine
from modules.stable_fast.graph.trace import ERRORS, device_of
from modules.stable_fast.module_call import Given, Inputs, ModuleCall, call_module, check_module, number_changes
from modules.stable_fast.runtime.capture_table import CaptureOn
from modules.stable_fast.runtime.lock import Turn, in_turn
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.size_check import agrees
from modules.stable_fast.runtime.weights import StaleWeightsError


class CompiledModule:
    """A compiled module, called like the original. `prepare(...)` fixes inputs bound to "prompt" for later calls.

    A call of a new form (another type, another unnamed size, a named size that is not a multiple) is traced when it
    first occurs. After a call that only works eagerly, all calls run eagerly. A call that fails eagerly too raises that
    error and changes nothing. A Python number is part of the form: after a few values, calls with further values run
    eagerly. So do all calls in training mode. Weights rebound to other memory are detected if nothing was prepared.
    With `proves_sizes`, the first call for each set of named sizes is compared with the module itself.
    """

    def __init__(
        self,
        module: nn.Module,
        bindings: Mapping[str, str] | None = None,
        dims: Mapping[str, Any] | None = None,
        *,
        level: str = "full",
        capture_on: CaptureOn | None = None,
        tuning_seconds: float = 0.0,
        proves_sizes: bool = False,
    ) -> None:
        check_module(module, bindings or {})
        config = StableFastConfig(level=level, tuning_seconds=tuning_seconds)
        self._engine = Engine(module, config, bindings or {}, capture_on, follows_structure=True)
        self.report = self._engine.report
        self._inputs, self._proves_sizes = Inputs(module, dict(dims or {})), proves_sizes
        self.turn = Turn()  # programs store the results of the call in progress

    @in_turn
    def release(self) -> None:
        """Frees programs, prepared weights and graphs; the next call starts over."""
        self._engine.forget()

    @in_turn
    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Picks up weights changed in place (by default all) or rebound to other memory, and replaced layers."""
        self._engine.refresh_weights(changed)

    @in_turn
    def prepare(self, **inputs: Any) -> None:
        """Takes inputs known ahead. Their stage runs once, at the next call. Picks up weights in new memory."""
        self._engine.follow_moved_weights()
        self._engine.outdate()
        self.switch(0, **inputs)

    @in_turn
    def switch(self, which: int, **inputs: Any) -> None:
        """Switches to other inputs than those prepared (number 0). Each number keeps its inputs until `prepare`."""
        self._inputs.prepare(which, inputs)

    @in_turn
    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for a call of this form, traced now if it does not exist yet."""
        call = self._inputs.call(self._inputs.of(args, kwargs))
        return self._engine.program(call.form, call.inputs, call.dims)

    @in_turn
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given, level = self._inputs.of(args, kwargs), self.report.level
        if self._engine.module.training or level.is_off:
            return self._eager(given)
        call = self._inputs.call(given, with_names=level.fused)
        with torch.no_grad(), self._engine.compilation_noted(call.name):
            return self._compiled(call)

    def _compiled(self, call: ModuleCall) -> Any:
        engine = self._engine
        if call.given.which is None:
            engine.follow_moved_weights()
        if number_changes(call, engine.forms, self.report):
            return self._eager(call.given)
        try:
            return self._fused(call) if self.report.level.fused else self._graph(call)
        except (StaleWeightsError, torch.AcceleratorError):
            raise
        except ERRORS as error:
            no_memory = lacks_memory(error)  # not the program's fault if it has already run
            if engine.suspects_kept(call.form, is_proven=no_memory and engine.has_run(call.form)):
                self._eager(call.given)  # raises the module's own error if the call is invalid
                engine.discard_kept(call.form, error)
                return self._compiled(call)
            if no_memory:
                raise
            reason = why_eager(error)
        result = self._eager(call.given)  # not in the handler: the error keeps the program's results alive
        if call.dims and engine.has_program(call.form):  # it can be traced, but not for these sizes
            self._inputs.forget_names(reason)
            engine.forget()
        else:
            engine.turn_off(reason)
        return result

    def _fused(self, call: ModuleCall) -> Any:
        engine = self._engine
        program = engine.program(call.form, call.inputs, call.dims)
        tensors, sizes = call.in_program_layout(), program.measure(call.tensors)
        key = (*call.form, *sorted(sizes.items()))
        known = engine.execution(key)
        execution = known or engine.new_execution(program, sizes)
        prompt = {name: tensors[name] for name in program.inputs_at("prompt")}
        execution.show_prompt(engine.stamp if call.keeps_prompt else None, prompt, call.given.which or 0)
        function, inputs = execution.step_of(tensors)
        if known is None:
            engine.make_ready(partial(function, *inputs), device_of(engine.module, tensors), draws=program.draws)
            proves = self._proves_sizes and call.dims and not program.draws  # each call draws new numbers
            if proves and not agrees(function(*inputs), call_module(engine.module, call.inputs)):
                self._inputs.forget_names("it computes with a size, or branches on one, that dims names")
                engine.forget()
                return self._fused(call.without_names())
            engine.keep(key, execution)
        self.report.counters.fused_steps += 1
        return engine.run(key, call.name, function, inputs, draws=program.draws)

    def _graph(self, call: ModuleCall) -> Any:
        """The module's own kernels, captured."""
        self._engine.store.watch_all()
        result = self._engine.run(call.form, call.name, *call.as_function())
        self._engine.forms.add(call.form)
        self.report.counters.eager_steps += 1
        return result

    def _eager(self, given: Given) -> Any:
        result = call_module(self._engine.module, given.inputs)
        self.report.counters.eager_steps += 1
        return result
