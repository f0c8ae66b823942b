"""Turns an nn.Module into one flat graph of ATen operations, with weights lifted to inputs.

The form that passes may rely on (torch.export's training IR, non-strict, inference mode; torch 2.11 to 2.13):
- Nodes call ATen overloads before decomposition: aten.conv2d.default, aten.linear.default, aten.group_norm.default,
  aten.layer_norm.default, aten.scaled_dot_product_attention.default, aten.silu.default, aten.gelu.default,
  aten.upsample_nearest2d.vec and so on. None of them works in place. The only other target is operator.getitem.
- Placeholders come first: parameters and buffers (`Traced.weights`), constants, then the user's inputs, flattened in
  the order of the example; a tuple `control` becomes `control_0`, `control_1`, ...
- Each node carries a meta tensor under `meta["val"]` (dtype, shape, strides); named sizes appear there as primes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from modules.stable_fast.changes.adapters import merge_adapters
from modules.stable_fast.graph.containers import Containers, Fixed, make_known
from modules.stable_fast.graph.effects import READS, attributes_of, check_effects, refuse_reads, where
from modules.stable_fast.graph.errors import TraceError, Untraceable
from modules.stable_fast.graph.flatten import flatten_dims, flatten_inputs, laid_out, paths_of, with_leaves
from modules.stable_fast.graph.formulas import with_formulas, with_guesses
from modules.stable_fast.graph.plain_form import copied, fills, in_plain_form
from modules.stable_fast.graph.sizes import (
    Dims,
    SizeError,
    Sizes,
    choices_of_primes,
    example_shape,
    fixed_sizes,
    measure,
    parse_dim,
)  # fmt: skip
from modules.stable_fast.graph.verify import fits

# Errors from a module's own code on fake tensors, from torch.export, and from a program that does not fit its inputs.
ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError,
)  # fmt: skip


_IS_TRACING: ContextVar[bool] = ContextVar("is_tracing", default=False)


@dataclass(frozen=True)
class Traced:
    """A graph, the meaning of its placeholders, and the structure of its result."""

    graph: fx.Graph
    weights: Mapping[str, str]  # placeholder -> parameter or buffer of the module
    constants: Mapping[str, Tensor]  # placeholder -> tensor that the module made during tracing
    inputs: tuple[str, ...]  # placeholders for the user's tensors
    dims: Mapping[str, Dims]
    sizes: Sizes
    out_spec: pytree.TreeSpec


def shape_twin(module: nn.Module, mode: FakeTensorMode, place: torch.device | None = None) -> nn.Module:
    """The same module in evaluation mode, with weights that have a device, dtype and shape but no memory.

    With `place`, they are on that device.
    """
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        twin = mode.from_tensor(tensor.detach())
        if place is not None and twin.device != place:
            with mode:
                twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=place)
        memo[id(tensor)] = nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin
    return copy.deepcopy(module, memo).eval()


def _shape_call(
    example: Mapping[str, Any], dims: Mapping[str, Dims], sizes: Sizes, mode: FakeTensorMode
) -> dict[str, Any]:
    """The example call on fake tensors, with primes as named sizes."""

    def convert(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            shape = example_shape(value, dims.get(name, ()), sizes)
            with mode:
                return torch.empty(shape, dtype=value.dtype, device=value.device)
        return value

    return with_leaves(example, convert)


def _fixed_sizes(module: nn.Module, flat: Mapping[str, Tensor], dims: Mapping[str, Dims]) -> set[int]:
    fixed = {size for tensor in [*module.parameters(), *module.buffers()] for size in tensor.shape}
    for name, tensor in flat.items():
        fixed |= set(fixed_sizes(name, tensor, dims))
    return fixed


def trace(
    module: nn.Module,
    example: Mapping[str, Any],
    dims: Mapping[str, Any] | None = None,
    place: torch.device | None = None,
) -> Traced:
    """One graph for `module(**example)`; `dims` names the dimensions that may change later (see graph/sizes.py).

    With `place`, as if the module's weights were on that device.
    """
    _check_place(module)
    flat, flat_dims = flatten_inputs(example), flatten_dims(dims or {})
    measure(flat_dims, flat)
    names = {parse_dim(dim)[1] for item in flat_dims.values() for dim in item if dim is not None}
    first: TraceError | None = None
    try:
        for sizes in choices_of_primes(names, _fixed_sizes(module, flat, flat_dims)):
            try:
                return _with_sums(
                    module, example, _trace(module, example, flat_dims, sizes[0], place), sizes[1:3], place
                )
            except Untraceable:
                raise
            except TraceError as error:
                first = first or error
    except SizeError as error:
        first = first or TraceError(str(error))
    if names:
        try:
            _trace(module, example, {}, Sizes({}), place)
        except TraceError as error:
            raise Untraceable(str(error)) from error
    raise first or TraceError(f"{type(module).__name__} cannot be traced")


def _with_sums(
    module: nn.Module,
    example: Mapping[str, Any],
    traced: Traced,
    others: Sequence[Sizes],
    place: torch.device | None,
) -> Traced:
    """The trace with formulas for sums of named sizes. Only a graph that fits no other sizes is traced with others."""
    if len(others) < 2 or fits(traced.graph, traced.sizes, others[0].primes):
        return traced
    guess = with_guesses(traced.graph, traced.sizes)
    if guess.formulas and all(fits(traced.graph, guess, each.primes) for each in others):
        return replace(traced, sizes=guess)
    try:
        more = [_trace(module, example, traced.dims, sizes, place) for sizes in others]
    except TraceError:  # these primes are too large or too small for the module
        return traced
    return replace(traced, sizes=with_formulas([(each.graph, each.sizes) for each in (traced, *more)]))


def _trace(
    module: nn.Module,
    example: Mapping[str, Any],
    dims: Mapping[str, Dims],
    sizes: Sizes,
    place: torch.device | None,
) -> Traced:
    """The graph with these primes as the named sizes."""
    # Imported late, because the import takes seconds and a graph from the cache does not need it.
    import torch.export

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    call = _shape_call(example, dims, sizes, mode)
    try:
        with torch.no_grad():
            twin = shape_twin(module, mode, place)
            merge_adapters(twin, mode)
            before, after = attributes_of(twin), dict[str, Any]()
            containers = Containers(twin)

            def look(_module: nn.Module, _args: Any, result: Any) -> None:
                after.update(attributes_of(twin))  # here, because export restores the attributes afterwards
                make_known(result)

            twin.register_forward_pre_hook(lambda *_: refuse_reads())
            twin.register_forward_hook(look)
            with tracing():
                program = in_plain_form(torch.export.export(twin, *laid_out(module, call), strict=False))
        check_effects(program, before, after, paths_of(example))
        if containers.changed:
            raise TraceError(f"it changes its input {containers.changed} while it runs, and does not return it")
        return _lift(program, tuple(flatten_inputs(example)), dims, sizes)
    except READS as error:
        reason = f"it reads the contents of a tensor in Python ({where(error)})"
        raise Untraceable(f"{type(module).__name__} cannot be traced: {reason}") from error
    except ERRORS as error:
        raise TraceError(f"{type(module).__name__} cannot be traced: {first_line(error)}") from error


def _check_place(module: nn.Module) -> None:
    """Raises TraceError if hooks of accelerate move the module's weights, as diffusers' offload does."""
    if any(hasattr(part, "_hf_hook") for part in module.modules()):
        raise TraceError(f"{type(module).__name__} is under hooks that move its weights (offload): it runs eagerly")


def device_of(module: nn.Module, call: Mapping[str, Any]) -> torch.device:
    """The device of the call's tensors. Raises TraceError if there are no tensors."""
    for tensor in flatten_inputs(call).values():
        return tensor.device
    raise TraceError(f"{type(module).__name__} cannot be compiled for a call without a tensor")


@contextmanager
def tracing() -> Iterator[None]:
    """Marks this thread, and leaves Python's stack out of graphs: nobody reads it, and it takes a fifth of the time."""
    import torch.fx.config as settings

    token, before = _IS_TRACING.set(True), getattr(settings, "do_not_emit_stack_traces", False)
    settings.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        _IS_TRACING.reset(token)
        settings.do_not_emit_stack_traces = before  # other code in this process may want them


def is_tracing() -> bool:
    """Whether this thread is tracing a module. (PyTorch's own flag is shared by all threads.)"""
    return _IS_TRACING.get()


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _lift(
    program: torch.export.ExportedProgram,
    inputs: Sequence[str],
    dims: Mapping[str, Dims],
    sizes: Sizes,
) -> Traced:
    from torch.export.graph_signature import InputKind

    weights: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    users: list[str] = []
    tensors = {node.name for node in program.graph.nodes if isinstance(node.meta.get("val"), Tensor)}
    for spec in program.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            weights[name] = str(spec.target)
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            constants[name] = _constant(program, str(spec.target))
        elif name in tensors:
            users.append(name)
    if len(users) != len(inputs) or program.call_spec.out_spec is None:
        raise TraceError(f"the graph has inputs {users}, the example call {list(inputs)}")
    names = dict(zip(users, inputs, strict=True)) | {name: name for name in (*weights, *constants)}
    graph = copied(program.graph, names)
    for name in [name for name, tensor in constants.items() if fills(graph, name, tensor, sizes)]:
        del constants[name]
    _check_result(graph, inputs)
    out_spec = _with_fixed(program, program.call_spec.out_spec)
    return Traced(graph, weights, constants, tuple(inputs), dims, sizes, out_spec)


def _with_fixed(program: torch.export.ExportedProgram, spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """The structure of the result with its constants in place, so that only tensors have to be filled in."""
    results: Any = next(iter(reversed(program.graph.nodes))).args[0]
    leaves = [result.meta["val"] if isinstance(result, fx.Node) else Fixed(result) for result in results]
    return pytree.tree_structure(pytree.tree_unflatten(leaves, spec))


def _check_result(graph: fx.Graph, inputs: Sequence[str]) -> None:
    """Raises TraceError if there is no tensor among the results, or if one is an input or a weight."""
    results = next(iter(reversed(graph.nodes))).all_input_nodes
    if not results:
        raise TraceError("its result holds no tensor")
    for node in results:
        if node.op == "placeholder":
            what = f"its input {node.name}" if node.name in inputs else "one of its weights"
            raise TraceError(f"it returns {what} as it is")


def _constant(program: torch.export.ExportedProgram, name: str) -> Tensor:
    value = program.constants[name]
    if not isinstance(value, Tensor):
        raise TraceError(f"the module holds {name}, which is not a tensor")
    return value
