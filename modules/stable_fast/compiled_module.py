"""Compiles any nn.Module: text encoders, VAE, ControlNets, and other people's networks (other_networks.py)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modules.core.device import lacks_memory
from modules.stable_fast.compiler import CANNOT_COMPILE, why_eager
from modules.stable_fast.config import StableFastConfig
from modules.stable_fast.engine import Engine
from modules.stable_fast.graph.flatten import in_new_containers
from modules.stable_fast.graph.sizes import measure
from modules.stable_fast.graph.staging import ROWS
from modules.stable_fast.graph.trace import ERRORS, Untraceable, device_of
from modules.stable_fast.module_call import (
    Given,
    Inputs,
    ModuleCall,
    NamedInputs,
    call_module,
    check_module,
    number_changes,
)
from modules.stable_fast.runtime.capture_table import CaptureOn
from modules.stable_fast.runtime.lock import Turn, in_turn
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.same_prompt import SamePrompt
from modules.stable_fast.runtime.size_check import agrees
from modules.stable_fast.runtime.weights import StaleWeightsError
from modules.stable_fast.store.tables import Table


class CompiledModule:
    """A compiled module, called like the original. `prepare(...)` fixes inputs bound to "prompt" for later calls.

    A call of a new form (another type, another unnamed size, a named size that is not a multiple) is traced when it
    first occurs. After a call that only works eagerly, all calls run eagerly. A call that fails eagerly too raises that
    error and changes nothing. A Python number is part of the form: after a few values, calls with further values run
    eagerly. So do all calls in training mode. Weights rebound to other memory are detected if nothing was prepared.
    With `proves_sizes`, the first call for each set of named sizes is compared with the module itself.
    `times_repeated` says how many times the rows of a tensor repeat: what needs latents alone is computed once for all.
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
        table: Table | None = None,
        precision: str = "off",
        proves_sizes: bool = False,
        times_repeated: Callable[[Tensor], int] | None = None,
    ) -> None:
        check_module(module, bindings or {})
        config = StableFastConfig(level=level, tuning_seconds=tuning_seconds, table=table, precision=precision)
        self._engine = Engine(module, config, bindings or {}, capture_on, follows_structure=True)
        self.report = self._engine.report
        self._inputs, self._proves_sizes = Inputs(module, dict(dims or {})), proves_sizes
        self._same_prompt, self._times_repeated = SamePrompt(), times_repeated
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
    def begin_look(self, *, reads_weights: bool = True) -> bool:
        """Begins a look, which `look` ends. Returns whether the module still holds the objects of the last one."""
        return self._engine.begin_look(reads_weights=reads_weights)

    @in_turn
    def look(self, *, reads_weights: bool = True) -> bool:
        """Picks up whatever changed in the module since the last look. After a first look, calls check nothing.

        Without `reads_weights`, weights that were written past their versions are left to a later look. Returns
        whether the weights moved to other memory, and nothing else is new.
        """
        return self._engine.look(reads_weights=reads_weights)

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
        try:
            return self._engine.program(call.form, call.inputs, call.dims)
        except CANNOT_COMPILE as error:
            if not call.dims or not self._proves_sizes or isinstance(error, Untraceable):
                raise
            reason = why_eager(error)
        self._inputs.drop_names(reason)
        return self.compile(*args, **kwargs)

    @in_turn
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._called(self._inputs.of(args, kwargs))

    @in_turn
    def called(self, inputs: NamedInputs) -> Any:
        """The result for all inputs by name, in the module's order. Nothing may be prepared."""
        return self._called(Given(inputs, None, overrules=False))

    def _called(self, given: Given) -> Any:
        level = self.report.level
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
                self._check(call)
                engine.discard_kept(call.form, error)
                return self._compiled(call)
            if no_memory:
                raise
            reason, has_names = why_eager(error), bool(call.dims) and not isinstance(error, Untraceable)
        # Not in the handler, since the error keeps the program's results alive.
        if has_names:
            if not self._inputs.is_dropping:
                self._check(call)
            return self._compiled(self._with_fewer_names(call, reason))
        result = self._eager(call.given)
        engine.turn_off(reason)
        return result

    def _fused(self, call: ModuleCall) -> Any:
        engine = self._engine
        program = engine.program(call.form, call.inputs, call.dims)
        sizes = program.measure(call.tensors)
        times, latents = self._repeats(program, call, sizes.get(ROWS, 1)), program.inputs_with_rows("latent")
        tensors = call.in_program_layout({name: times for name in latents})
        key = (*call.form, *sorted(sizes.items()), times)
        known = engine.execution(key)
        execution = known or engine.new_execution(program, sizes, times)
        prompt = {name: tensors[name] for name in program.inputs_at("prompt")}
        execution.show_prompt(self._stamp(call, prompt), prompt, call.given.which or 0)
        function, inputs = execution.step_of(tensors)
        if known is None:
            engine.make_ready(partial(function, *inputs), device_of(engine.module, tensors), draws=program.draws)
            proves = self._proves_sizes and call.dims and not program.draws  # each call draws new numbers
            if proves and not agrees(function(*inputs), self._check(call)):
                reason = "it computes with a size, or branches on one, that dims names"
                return self._fused(self._with_fewer_names(call, reason))
            engine.keep(key, execution)
            self._inputs.settle()
        self.report.counters.fused_steps += 1
        return engine.run(key, call.name, function, inputs, draws=program.draws)

    def _repeats(self, program: Program, call: ModuleCall, batch: int) -> int:
        """How many times the batch repeats, as far as inputs bound to "latent" tell."""
        latents = program.inputs_with_rows("latent") if self._times_repeated is not None else ()
        counts = {self._times_repeated(call.tensors[name]) for name in latents if self._times_repeated is not None}
        times = counts.pop() if len(counts) == 1 else 1
        return times if batch % times == 0 else 1

    def _check(self, call: ModuleCall) -> Any:
        """The module's own result, or its own error if the call is invalid. Changes nothing that the call holds."""
        return call_module(self._engine.module, in_new_containers(call.inputs))

    def _with_fewer_names(self, call: ModuleCall, reason: str) -> ModuleCall:
        """The same call after names were dropped: first one that has a new value in it."""
        self._inputs.drop_names(reason, self._engine.new_sizes(call.form, measure(call.dims, call.tensors)))
        self._engine.forget()
        return self._inputs.call(call.given)

    def _stamp(self, call: ModuleCall, prompt: Iterable[str]) -> Hashable:
        """What the results of the prompt stage were computed from: they are out of date if it differs."""
        if call.keeps_prompt:
            return self._engine.stamp
        return self._engine.stamp, self._same_prompt.number({name: call.tensors[name] for name in prompt})

    def __reduce__(self) -> tuple[Callable[[nn.Module], nn.Module], tuple[nn.Module]]:
        """A copy or pickle is that of the module itself, not compiled."""
        return _itself, (self._engine.module,)

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


def _itself(module: nn.Module) -> nn.Module:
    return module
