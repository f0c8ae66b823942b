"""Any nn.Module, compiled: the generic entry behind text encoders, VAE, ControlNets and other people's networks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.compiler import compile_program
from modules.stable_fast.config import level_in_force
from modules.stable_fast.execution import Execution, can_capture, channels_last
from modules.stable_fast.graphs.table import GraphTable, cuda_capture
from modules.stable_fast.passes import PASSES
from modules.stable_fast.program import Program
from modules.stable_fast.report import Report
from modules.stable_fast.sizes import SizeError, measure
from modules.stable_fast.trace import flatten_dims, flatten_inputs
from modules.stable_fast.weights import StaleWeightsError, WeightStore

Call = dict[str, Any]
Key = tuple[Any, ...]


class CompiledModule:
    """Called like the module it was made from. `prepare(...)` fixes inputs bound to "prompt" for later calls.

    A call of a new form (another type, another unnamed size, a named size that is no multiple) is traced when it comes.
    At level "full", on CUDA, what follows the prompt stage is captured, one graph for each set of sizes.
    """

    def __init__(
        self,
        module: nn.Module,
        bindings: Mapping[str, str] | None = None,
        dims: Mapping[str, Any] | None = None,
        *,
        level: str = "full",
    ) -> None:
        in_force, reason = level_in_force(level)
        self.report = Report(asked=level, level=in_force, reason=reason)
        self._module = module
        self._signature = inspect.signature(module.forward)
        self._bindings = dict(bindings or {})
        self._dims = dict(dims or {})
        self._prepared: Call = {}
        self._graphs: GraphTable | None = None
        self.release()

    def release(self) -> None:
        """Frees programs, prepared weights and graphs; the next call starts over."""
        if self._graphs is not None:
            self._graphs.release()
        self._graphs = None
        self._store = WeightStore(self._module)
        self._programs: dict[Key, Program] = {}
        self._executions: dict[Key, Execution] = {}
        self._current: set[Key] = set()

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Follows weights that were changed in place (all of them, if not told which)."""
        self._store.refresh(changed)
        self._current.clear()
        self.report.counters.weights_refreshed += 1

    def prepare(self, **inputs: Any) -> None:
        """Inputs known ahead: their stage runs once, at the next call, and calls leave them out."""
        self._prepared = inputs
        self._current.clear()

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for a call of this form, traced now if there is none yet."""
        call = self._call(args, kwargs)
        dims = self._dims if _fits(self._dims, call) else {}
        return self._program(_form(call, dims), call, dims)

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._follow_moved_weights()
        call = self._call(args, kwargs)
        dims = self._dims if _fits(self._dims, call) else {}
        form = _form(call, dims)
        program = self._program(form, call, dims)
        tensors = {name: channels_last(tensor) for name, tensor in flatten_inputs(call).items()}
        sizes = program.measure(tensors)
        key = (*form, *sorted(sizes.items()))
        if key not in self._executions:
            self._executions[key] = Execution(program, sizes)
        execution = self._executions[key]
        if key not in self._current or kwargs.keys() & self._prepared.keys() or not self._prepared:
            execution.set_prompt({name: tensors[name] for name in program.inputs_at("prompt")})
            self._current.add(key)
        return self._run(key, execution, tensors)

    def _run(self, key: Key, execution: Execution, tensors: Mapping[str, Tensor]) -> Any:
        times = execution.program.inputs_at("time")
        inputs = [tensors[name] for name in (*times, *execution.moving_inputs)]

        def function(*values: Tensor) -> Any:
            known = execution.evaluate_time(dict(zip(times, values, strict=False)))
            return execution.run(values[len(times) :], known)

        self.report.counters.fused_steps += 1
        if self.report.level != "full" or not can_capture(inputs[0].device):
            return function(*inputs)
        if self._graphs is None:
            self._graphs = GraphTable(cuda_capture(inputs[0].device))
        with torch.inference_mode(mode=False):
            result = self._graphs.run(key, function, inputs)
        self.report.counters.captures = self._graphs.captures
        return result

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        given = self._signature.bind_partial(*args, **kwargs).arguments
        return {**self._prepared, **given}

    def _follow_moved_weights(self) -> None:
        try:
            self._store.check_addresses()
        except StaleWeightsError:
            self.release()

    def _program(self, form: Key, call: Call, dims: Mapping[str, Any]) -> Program:
        if form not in self._programs:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._programs[form], compiled = compile_program(
                    self._store, call, bindings=self._bindings, dims=dims, passes=PASSES
                )
            self.report.programs.append(compiled)
            self.report.counters.traces += 1
        return self._programs[form]


def compile_module(
    module: nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[Any],
    bindings: Mapping[str, str] | None = None,
    dims: Mapping[str, Any] | None = None,
    *,
    level: str = "full",
) -> CompiledModule:
    """Traces, stages and fuses any module; raises TraceError when it cannot be made one graph.

    `bindings`: when each input becomes known, "prompt", "time", "latent" or (by default) "step".
    `dims`: names for dimensions that may change without a new trace, such as ("batch", None, "8*height", "8*width").
    """
    compiled = CompiledModule(module, bindings, dims, level=level)
    if isinstance(example_inputs, Mapping):
        compiled.compile(**example_inputs)
    else:
        compiled.compile(*example_inputs)
    return compiled


def _fits(dims: Mapping[str, Any], call: Call) -> bool:
    try:
        measure(flatten_dims(dims), flatten_inputs(call))
    except SizeError:
        return False
    return True


def _form(call: Call, dims: Mapping[str, Any]) -> Key:
    """What two calls must share to be served by one program."""
    named = flatten_dims(dims)
    shapes: list[Key] = []
    for name, tensor in flatten_inputs(call).items():
        symbols = named.get(name, ())
        fixed = (size for axis, size in enumerate(tensor.shape) if axis >= len(symbols) or symbols[axis] is None)
        shapes.append((name, tensor.dtype, tensor.device, tensor.dim(), *fixed))
    constants = tuple((name, repr(value)) for name, value in call.items() if not flatten_inputs({name: value}))
    return (bool(named), tuple(shapes), constants)
