"""Any nn.Module, compiled: text encoders, VAE, ControlNets, and other people's networks (other_networks.py)."""

from __future__ import annotations

import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modules.core.device import lacks_memory
from modules.stable_fast.compiler import CANNOT_COMPILE, compile_program, forget_kept
from modules.stable_fast.config import check_level, level_in_force
from modules.stable_fast.graph.fingerprint import structure_of
from modules.stable_fast.graph.flatten import flatten_inputs, laid_out
from modules.stable_fast.graph.staging import MOMENTS
from modules.stable_fast.graph.trace import ERRORS, TraceError, first_line, is_tracing
from modules.stable_fast.module_call import (
    Call,
    Form,
    Key,
    bind_call,
    changing_numbers,
    check_evaluates,
    device_of,
    fits,
    form_of,
    in_order,
    on_one_device,
    shapes_of,
    with_tensors,
)
from modules.stable_fast.passes import passes_for
from modules.stable_fast.report import Report
from modules.stable_fast.runtime.capture import GraphPool
from modules.stable_fast.runtime.capture_table import CaptureOn, GraphTable
from modules.stable_fast.runtime.execution import DRAWS, NO_GRAPHS, Execution, can_capture, channels_last
from modules.stable_fast.runtime.lock import Turn, in_turn
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.size_check import agrees
from modules.stable_fast.runtime.weights import StaleWeightsError, WeightStore
from modules.stable_fast.store.tuning import make_ready

log = logging.getLogger(__name__)

MAX_SIZES = 8  # kept at a time, each with its prompt values and its graph


class CompiledModule:
    """Called like the module it was made from. `prepare(...)` fixes inputs bound to "prompt" for later calls.

    A call of a new form (another type, another unnamed size, a named size that is no multiple) is traced when it comes.
    At level "full", on CUDA, what follows the prompt stage is captured, one graph for each set of sizes; at level
    "graph" the module's own kernels are. After a call that only eager can serve all run eagerly, with the reason in
    the report; one that eager refuses too raises eager's error and changes nothing. A Python number is part of the
    form: after a few values of one, calls with others run eagerly. So do all while the module is in training.
    `proves_sizes` compares the first call of each set of named sizes with the module itself.
    Weights bound to other memory are noticed by `prepare`, and by calls that nothing was prepared for; other layers,
    attributes and hooks by `refresh_weights`.
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
        check_level(level)
        check_evaluates(module)
        for name, moment in (bindings or {}).items():
            if moment not in MOMENTS:
                raise ValueError(f"{name} is bound to {moment!r}, which is not one of {', '.join(MOMENTS)}")
        in_force, reason = level_in_force(level)
        self.report = Report(asked=level, level=in_force, reason=reason)
        self._module = module
        self._signature = inspect.signature(module.forward)
        self._bindings = dict(bindings or {})
        self._dims = dict(dims or {})
        self._capture_on = capture_on
        self._tuning_seconds = tuning_seconds
        self._proves_sizes = proves_sizes
        self.turn = Turn()  # programs keep what they compute for one call
        self._prepared: Call = {}
        self._which = 0
        self._graphs: GraphTable | None = None
        self._reads_kept = True  # until a graph from disk has failed: it may be one that cannot be deleted
        self.release()

    @in_turn
    def release(self) -> None:
        """Frees programs, prepared weights and graphs; the next call starts over."""
        if self._graphs is not None:
            self._graphs.release()
        self._graphs = None
        self._store = WeightStore(self._module)
        self._structure = structure_of(self._module)
        self._forms: set[Form] = set()
        self._programs: dict[Form, Program] = {}
        self._executions: OrderedDict[Key, Execution] = OrderedDict()
        self._current: set[Key] = set()

    @in_turn
    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Follows weights that were changed in place (all of them, if not told which), or bound to other memory.

        Also other layers, attributes and hooks than at the trace.
        """
        if structure_of(self._module) != self._structure:
            self.release()
        self._follow_moved_weights()
        self._store.refresh(changed)
        self._current.clear()
        self.report.counters.weights_refreshed += 1

    @in_turn
    def prepare(self, **inputs: Any) -> None:
        """Inputs known ahead: their stage runs once, at the next call, and calls leave them out."""
        self._follow_moved_weights()
        self._current.clear()
        self.switch(0, **inputs)

    @in_turn
    def switch(self, which: int, **inputs: Any) -> None:
        """Other inputs in place of those prepared, which are number 0. Each number's stage runs once: until `prepare`
        a number always has to come with the same inputs."""
        self._prepared, self._which = inputs, which

    @in_turn
    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for a call of this form, traced now if there is none yet."""
        return self.compile_call(bind_call(self._signature, args, kwargs))

    def compile_call(self, given: Call) -> Program:
        """`compile` for inputs by name."""
        call = on_one_device(in_order(self._signature, self._prepared | given))
        dims = self._dims_for(call)
        return self._program(form_of(call, dims), call, dims)

    @in_turn
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_tracing():
            raise TraceError("it holds a module that is compiled already: compile the whole, or only the part")
        given = bind_call(self._signature, args, kwargs)
        call = in_order(self._signature, self._prepared | given)
        if self._module.training or self.report.level == "off":
            return self._eager(call)
        with torch.no_grad(), self._warm_up_noted(call):
            return self._compiled(call, again=bool(given.keys() & self._prepared.keys()))

    def _compiled(self, as_given: Call, *, again: bool) -> Any:
        if not self._prepared:
            self._follow_moved_weights()
        call = on_one_device(as_given)
        is_fused = self.report.level in ("full", "fused")
        dims = self._dims_for(call) if is_fused else {}
        form = form_of(call, dims)
        changing = changing_numbers(form, self._forms)
        if changing:
            self._note_numbers(call, changing)
            return self._eager(as_given)
        try:
            return self._fused(form, call, dims, again=again) if is_fused else self._graph(form, call)
        except (StaleWeightsError, torch.AcceleratorError):
            raise
        except ERRORS as error:
            kept = [program for program in self._suspects(form, error) if program.kept_at and self._reads_kept]
            if kept:
                self._eager(as_given)  # raises the module's own error when this is no call of it
                forget_kept(kept, error)
                self._reads_kept = False
                self.release()
                return self._compiled(as_given, again=again)
            if lacks_memory(error):
                raise
            reason = str(error) if isinstance(error, CANNOT_COMPILE) else f"its program fails: {first_line(error)}"
        # Only here, since the error keeps alive what the program had computed.
        result = self._eager(as_given)  # raises the module's own error when this is no call of it
        if dims and form in self._programs:  # so it can be traced, but not for these sizes
            self._forget_names(reason)
        else:
            log.warning("Stable-Fast is off: %s", reason)
            self.report.lower("off", reason)
            self.release()
        return result

    def _suspects(self, form: Form, error: Exception) -> list[Program]:
        """The program that may be at fault. Memory can run out in any, so then only one that never ran is suspected."""
        has_run = any(key[: len(form)] == form for key in self._executions)
        return [] if form not in self._programs or (has_run and lacks_memory(error)) else [self._programs[form]]

    def _note_numbers(self, call: Call, names: Sequence[str]) -> None:
        """These sizes run eagerly for other numbers than the first few."""
        reason = f"{' and '.join(names)} is a number that changes from call to call: give it as a tensor"
        if all(shape.reason != reason for shape in self.report.shapes.values()):
            log.warning("Stable-Fast runs further values eagerly: %s", reason)
        shape = self.report.shape(shapes_of(call))
        shape.level, shape.reason = "off", reason

    def _fused(self, form: Form, call: Call, dims: Mapping[str, Any], *, again: bool) -> Any:
        """`again`: what was prepared is overruled by this call, so the prompt stage has to run for it."""
        device = device_of(self._module, call)
        program = self._program(form, call, dims)
        tensors = {name: channels_last(tensor) for name, tensor in flatten_inputs(call).items()}
        sizes = program.measure(tensors)
        key = (*form, *sorted(sizes.items()))
        is_new = key not in self._executions
        execution = Execution(program, sizes) if is_new else self._executions[key]
        if is_new:
            self._make_room()
        else:
            self._executions.move_to_end(key)
        prompt = {name: tensors[name] for name in program.inputs_at("prompt")}
        if is_new or key not in self._current or again or not self._prepared:
            execution.set_prompt(prompt, self._which)
            if again:  # what was prepared counts again for the next call
                self._current.discard(key)
            else:
                self._current.add(key)
        else:
            execution.switch_prompt(self._which, prompt)
        times = program.inputs_at("time")
        inputs = [tensors[name] for name in (*times, *execution.moving_inputs)]

        def function(*values: Tensor) -> Any:
            known = execution.evaluate_time(dict(zip(times, values, strict=False)))
            return execution.run(values[len(times) :], known)

        if is_new:
            make_ready(partial(function, *inputs), device, self._tuning_seconds, draws=program.draws)
            proves = dims and self._proves_sizes and not program.draws  # others are drawn each time
            if proves and not self._serves(call, function(*inputs)):
                self._forget_names("it computes with a size, or branches on one, that dims names")
                return self._fused(form_of(call, {}), call, {}, again=again)
            self._executions[key] = execution
        self.report.counters.fused_steps += 1
        if self.report.level == "full" and program.draws and can_capture(device):
            self.report.lower("fused", DRAWS)
        return self._captured(key, call, function, inputs) if self.report.level == "full" else function(*inputs)

    def _serves(self, call: Call, result: Any) -> bool:
        """Whether a program's result is right at these sizes, by comparison with the module itself."""
        args, kwargs = laid_out(self._module, call)
        return agrees(result, self._module(*args, **kwargs))

    def _forget_names(self, reason: str) -> None:
        """From now on no size has a name, and each has a trace of its own."""
        log.warning("Stable-Fast traces %s anew for each size: %s", type(self._module).__name__, reason)
        self._dims = {}
        self.release()

    def _make_room(self) -> None:
        while len(self._executions) >= MAX_SIZES:
            oldest, _ = self._executions.popitem(last=False)
            self._current.discard(oldest)
            if self._graphs is not None:
                self._graphs.drop(oldest)

    def _eager(self, call: Call) -> Any:
        with torch.set_grad_enabled(self._module.training and torch.is_grad_enabled()):
            args, kwargs = laid_out(self._module, call)
            result = self._module(*args, **kwargs)
        self.report.counters.eager_steps += 1
        return result

    def _graph(self, form: Form, call: Call) -> Any:
        """The module's own kernels, captured."""
        inputs = flatten_inputs(call)
        self._store.watch_all()

        def function(*values: Tensor) -> Any:
            args, kwargs = laid_out(self._module, with_tensors(call, dict(zip(inputs, values, strict=True))))
            return self._module(*args, **kwargs)

        result = self._captured(form, call, function, list(inputs.values()))
        self._forms.add(form)
        self.report.counters.eager_steps += 1
        return result

    def _captured(self, key: Key, call: Call, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        if inputs and not can_capture(inputs[0].device):
            self.report.lower("fused" if self.report.level == "full" else "off", NO_GRAPHS)
        if self.report.level not in ("full", "graph") or not inputs:
            return function(*inputs)
        if self._graphs is None:
            self._graphs = GraphTable((self._capture_on or GraphPool)(inputs[0].device), max_graphs=MAX_SIZES)
        result = self._graphs.run(key, function, inputs)
        counters = self.report.counters
        counters.captures = self._graphs.captures
        if key in self._graphs.reasons:
            shape = self.report.shape(shapes_of(call))
            shape.level, shape.reason = "fused" if self.report.level == "full" else "off", self._graphs.reasons[key]
        else:
            counters.replays += 1
        self.report.graph_mib = self._graphs.bytes / 2**20
        return result

    @contextmanager
    def _warm_up_noted(self, call: Call) -> Iterator[None]:
        """Books a call that traced or captured as warm-up of its shape."""
        counters = self.report.counters
        before, started = (counters.traces, counters.captures), time.perf_counter()
        yield
        if (counters.traces, counters.captures) != before:
            self.report.shape(shapes_of(call)).warm_up_seconds += time.perf_counter() - started
            self.report.weights_mib = self._store.owned_bytes() / 2**20

    def _dims_for(self, call: Call) -> Mapping[str, Any]:
        """The named sizes, unless this call does not fit them."""
        return self._dims if fits(self._dims, call) else {}

    def _follow_moved_weights(self) -> None:
        try:
            self._store.check_addresses()
        except StaleWeightsError:
            self.release()

    def _program(self, form: Form, call: Call, dims: Mapping[str, Any]) -> Program:
        if form not in self._programs:
            with torch.inference_mode(mode=False), torch.no_grad():
                device = device_of(self._module, call)
                self._programs[form], compiled = compile_program(
                    self._store,
                    call,
                    bindings=self._bindings,
                    dims=dims,
                    passes=passes_for(self.report.level, device),
                    reads_kept=self._reads_kept,
                )
            for name in self._programs[form].weights.values():
                self._store.source(name)  # watched from now on, not from the first call
            self._forms.add(form)
            self.report.programs.append(compiled)
            self.report.counters.traces += 1
        return self._programs[form]
