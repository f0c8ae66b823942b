"""Any nn.Module, compiled: the generic entry behind text encoders, VAE, ControlNets and other people's networks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.compiler import compile_program
from modules.stable_fast.execution import channels_last
from modules.stable_fast.passes import PASSES
from modules.stable_fast.passes.base import FusionPass
from modules.stable_fast.program import Program, Values
from modules.stable_fast.report import Report
from modules.stable_fast.sizes import SizeError, measure
from modules.stable_fast.staging import PROMPT, SHARED, STEP, TIME
from modules.stable_fast.trace import flatten_dims, flatten_inputs
from modules.stable_fast.weights import StaleWeightsError, WeightStore

Call = dict[str, Any]


class CompiledModule:
    """Called like the module it was made from. `prepare(...)` fixes the inputs bound to "prompt" for later calls.

    A call of a new form (another type, another unnamed size, a named size that is no multiple) is traced when it comes.
    """

    def __init__(
        self,
        module: nn.Module,
        bindings: Mapping[str, str] | None = None,
        dims: Mapping[str, Any] | None = None,
        passes: Sequence[FusionPass] = PASSES,
    ) -> None:
        self.report = Report(asked="fused", level="fused")
        self._module = module
        self._parameters = inspect.signature(module.forward)
        self._bindings = dict(bindings or {})
        self._dims = dict(dims or {})
        self._passes = tuple(passes)
        self._prepared: Call = {}
        self._prompt_values: dict[int, Values] = {}  # by program
        self.release()

    def release(self) -> None:
        """Frees programs and prepared weights; the next call starts over."""
        self._store = WeightStore(self._module)
        self._programs: dict[Any, Program] = {}
        self._prompt_values.clear()

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Follows weights that were changed in place (all of them, if not told which)."""
        self._store.refresh(changed)
        self._prompt_values.clear()
        self.report.counters.weights_refreshed += 1

    def prepare(self, **inputs: Any) -> None:
        """Inputs known ahead: their stage runs once, at the next call, and calls leave them out."""
        self._prepared = inputs
        self._prompt_values.clear()

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for a call of this form, traced now if there is none yet."""
        return self._program(self._call(args, kwargs))

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._follow_moved_weights()
        call = self._call(args, kwargs)
        program = self._program(call)
        values = {name: channels_last(tensor) for name, tensor in flatten_inputs(call).items()}
        sizes = program.measure(values)
        if not kwargs.keys() & self._prepared.keys() and self._prepared:
            values |= self._prompt(program, values)
        else:
            values |= _run(program, PROMPT, sizes, values)
        for stage in (TIME, SHARED, STEP):
            values |= _run(program, stage, sizes, values)
        self.report.counters.fused_steps += 1
        return program.result(values)

    def _prompt(self, program: Program, values: Values) -> Values:
        if id(program) not in self._prompt_values:
            self._prompt_values[id(program)] = _run(program, PROMPT, program.measure(values), values)
        return self._prompt_values[id(program)]

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        bound = self._parameters.bind_partial(*args, **{**self._prepared, **kwargs})
        return dict(bound.arguments)

    def _follow_moved_weights(self) -> None:
        try:
            self._store.check_addresses()
        except StaleWeightsError:
            self.release()

    def _program(self, call: Call) -> Program:
        dims = self._dims if _fits(self._dims, call) else {}
        form = _form(call, dims)
        if form not in self._programs:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._programs[form], compiled = compile_program(
                    self._store, call, bindings=self._bindings, dims=dims, passes=self._passes
                )
            self.report.programs.append(compiled)
            self.report.counters.traces += 1
        return self._programs[form]


def compile_module(
    module: nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[Any],
    bindings: Mapping[str, str] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> CompiledModule:
    """Traces, stages and fuses any module; raises TraceError when it cannot be made one graph.

    `bindings`: when each input becomes known, "prompt", "time", "latent" or (by default) "step".
    `dims`: names for dimensions that may change without a new trace, such as ("batch", None, "8*height", "8*width").
    """
    compiled = CompiledModule(module, bindings, dims)
    if isinstance(example_inputs, Mapping):
        compiled.compile(**example_inputs)
    else:
        compiled.compile(*example_inputs)
    return compiled


def _run(program: Program, stage: str, sizes: Mapping[str, int], values: Mapping[str, Tensor]) -> Values:
    return program.function(stage, sizes)({**program.constants(stage), **values})


def _fits(dims: Mapping[str, Any], call: Call) -> bool:
    try:
        measure(flatten_dims(dims), flatten_inputs(call))
    except SizeError:
        return False
    return True


def _form(call: Call, dims: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two calls must share to be served by one program."""
    named = flatten_dims(dims)
    tensors = flatten_inputs(call)
    shapes = []
    for name, tensor in tensors.items():
        symbols = named.get(name, ())
        fixed = (size for axis, size in enumerate(tensor.shape) if axis >= len(symbols) or symbols[axis] is None)
        shapes.append((name, tensor.dtype, tensor.device, tensor.dim(), *fixed))
    constants = tuple((name, repr(value)) for name, value in call.items() if not flatten_inputs({name: value}))
    return (bool(named), tuple(shapes), constants)
