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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.flatten import flatten_dims, flatten_inputs, laid_out, rebuilt
from modules.stable_fast.graph.sizes import Dims, Sizes, choose_primes, example_shape, fixed_sizes, measure, parse_dim

# Errors from a module's own code on fake tensors, from torch.export, and from a program that does not fit its inputs.
ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError,
)  # fmt: skip


class TraceError(RuntimeError):
    """The module cannot be turned into one graph."""


_IS_TRACING: ContextVar[bool] = ContextVar("is_tracing", default=False)


@dataclass(frozen=True)
class Fixed:
    """Stands for a non-tensor value in the structure of a result, and is turned back into that value."""

    value: Any


pytree.register_pytree_node(Fixed, lambda fixed: ([], fixed.value), lambda _, value: value)


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


def shape_twin(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The same module in evaluation mode, with weights that have a device, dtype and shape but no memory."""
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        twin = mode.from_tensor(tensor.detach())
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
        if isinstance(value, (tuple, list)):
            return rebuilt(value, (convert(f"{name}_{index}", item) for index, item in enumerate(value)))
        return value

    return {name: convert(name, value) for name, value in example.items()}


def _fixed_sizes(module: nn.Module, flat: Mapping[str, Tensor], dims: Mapping[str, Dims]) -> set[int]:
    fixed = {size for tensor in [*module.parameters(), *module.buffers()] for size in tensor.shape}
    for name, tensor in flat.items():
        fixed |= set(fixed_sizes(name, tensor, dims))
    return fixed


def _writes_in_place(graph: fx.Graph) -> bool:
    """ATen names of in-place operations end with an underscore: aten.add_.Tensor."""
    names = (str(node.target).split(".") for node in graph.nodes if node.op == "call_function")
    return any(len(name) == 3 and name[1].endswith("_") for name in names)


def trace(module: nn.Module, example: Mapping[str, Any], dims: Mapping[str, Any] | None = None) -> Traced:
    """One graph for `module(**example)`; `dims` names the dimensions that may change later (see graph/sizes.py)."""
    flat, flat_dims = flatten_inputs(example), flatten_dims(dims or {})
    measure(flat_dims, flat)
    names = {parse_dim(dim)[1] for item in flat_dims.values() for dim in item if dim is not None}
    sizes = choose_primes(names, _fixed_sizes(module, flat, flat_dims))
    # Imported late, because the import takes seconds and a graph from the cache does not need it.
    import torch.export

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    call = _shape_call(example, flat_dims, sizes, mode)
    try:
        with torch.no_grad():
            twin = shape_twin(module, mode)
            before, after = _plain_attributes(twin), dict[str, str]()
            # In a hook, because export restores the attributes afterwards.
            twin.register_forward_hook(lambda *_: after.update(_plain_attributes(twin)))
            with tracing():
                program = torch.export.export(twin, *laid_out(module, call), strict=False)
            if _writes_in_place(program.graph_module.graph):
                program = program.run_decompositions({})  # functional form; keeps the operations named above
        _check_effects(program, before, after)
        return _lift(program, tuple(flat), flat_dims, sizes)
    except ERRORS as error:
        raise TraceError(f"{type(module).__name__} cannot be traced: {first_line(error)}") from error


def device_of(module: nn.Module, call: Mapping[str, Any]) -> torch.device:
    """The device of the call's tensors. Raises TraceError if there are no tensors."""
    for tensor in flatten_inputs(call).values():
        return tensor.device
    raise TraceError(f"{type(module).__name__} cannot be compiled for a call without a tensor")


@contextmanager
def tracing() -> Iterator[None]:
    token = _IS_TRACING.set(True)
    try:
        yield
    finally:
        _IS_TRACING.reset(token)


def is_tracing() -> bool:
    """Whether this thread is tracing a module. (PyTorch's own flag is shared by all threads.)"""
    return _IS_TRACING.get()


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _plain_attributes(module: nn.Module) -> dict[str, str]:
    """Attributes of the module and its parts that may be counters or switches."""
    return {
        f"{path}.{name}".removeprefix("."): repr(value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if value is None or isinstance(value, (bool, int, float, str))
    }


def _check_effects(program: torch.export.ExportedProgram, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Rejects side effects: they would happen once and never again, since a graph only computes results."""
    for name in (*before, *after) if after else ():  # empty if the hook did not run
        if before.get(name) != after.get(name):
            raise TraceError(f"it changes its own attribute {name} while it runs")
    signature = program.graph_signature
    for name in signature.buffers_to_mutate.values():
        raise TraceError(f"it changes its own buffer {name} while it runs")
    for name in signature.user_inputs_to_mutate.values():
        raise TraceError(f"it writes to its input {name}")
    for node in program.graph.nodes:
        if node.op == "call_function" and "as_strided" in str(node.target):
            raise TraceError("it reads memory by strides (as_strided), and Stable-Fast has a layout of its own")


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
    graph = _copied(program.graph, names)
    _check_result(graph, inputs)
    out_spec = _with_fixed(program, program.call_spec.out_spec)
    return Traced(graph, weights, constants, tuple(inputs), dims, sizes, out_spec)


def _with_fixed(program: torch.export.ExportedProgram, spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """The structure of the result with its constants in place, so that only tensors have to be filled in."""
    results: Any = next(iter(reversed(program.graph.nodes))).args[0]
    leaves = [result if isinstance(result, fx.Node) else Fixed(result) for result in results]
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


def _copied(graph: fx.Graph, names: Mapping[str, str]) -> fx.Graph:
    """The graph with renamed placeholders. Unnamed ones are dropped: constants such as return_dict=False."""
    result = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in names:
            copies[node] = named_placeholder(result, names[node.name])
        elif node.op == "output":
            result.output(tuple(copies[item] for item in node.args[0] if isinstance(item, fx.Node)))
        elif node.op != "placeholder":
            copies[node] = result.node_copy(node, copies.__getitem__)
        else:
            continue
        if node in copies:
            copies[node].meta = _shapes_only(node.meta)
    return result


def named_placeholder(graph: fx.Graph, name: str) -> fx.Node:
    """A placeholder with exactly this name. FX would rename one that matches a Python builtin: input to input_1."""
    node = graph.placeholder(name)
    node.name = name
    return node


def _shapes_only(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Plain meta tensors in place of export's fake tensors, so that the graph outlives the tracer."""
    value = meta.get("val")
    return {} if value is None else {"val": pytree.tree_map(_plain_meta, value)}


def _plain_meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
