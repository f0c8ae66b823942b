"""Checks that a graph is well formed, that its metadata is correct, and that each literal fits the actual sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate, map_arg
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.sizes import SizeError, Sizes, replace_literal


class VerifyError(RuntimeError):
    """A graph breaks an invariant: a pass has a bug, or the graph cannot serve these sizes."""


class MetaCalls:
    """Evaluates nodes on meta tensors; equal calls on tensors of equal form only once, since blocks repeat."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, node: fx.Node, lookup: Callable[[fx.Node], Any]) -> Any:
        key = (node.target, _form_of(node.args, lookup), _form_of(node.kwargs, lookup))
        try:
            if key in self._known:
                return self._known[key]
        except TypeError:  # an argument that cannot be a key
            return evaluate_on_meta(node, lookup)
        self._known[key] = evaluate_on_meta(node, lookup)
        return self._known[key]


def _form_of(value: Any, lookup: Callable[[fx.Node], Any]) -> Any:
    """An argument as a key. Its type is part of it, since 1, 1.0 and True are equal keys."""
    if isinstance(value, fx.Node):
        return _form_of(lookup(value), lookup)
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return type(value), *(_form_of(item, lookup) for item in value)
    if isinstance(value, Mapping):
        return tuple((name, _form_of(item, lookup)) for name, item in value.items())
    return type(value), value


def check(graph: fx.Graph) -> None:
    """Lints the graph and recomputes every node's metadata from its arguments."""
    evaluate = MetaCalls()
    try:
        graph.lint()
    except RuntimeError as error:
        raise VerifyError(f"the graph is malformed: {error}") from error
    for node in graph.nodes:
        if node.op == "call_function":
            _compare(node, _evaluate(evaluate, node, lambda source: source.meta["val"]), node.meta["val"])
        if node.op == "output":
            _no_input_returned(node)


def propagate(graph: fx.Graph, sizes: Sizes, actual: Mapping[str, int], *, is_strict: bool = False) -> None:
    """Runs a graph on meta tensors with its literals replaced. Each result must have the traced shape, replaced in the
    same way.

    A traced size that came from a prime but is not a multiple of it (825 = 8 * 103 + 1, after padding) may differ,
    unless it is a literal of the operation, since that literal should have been replaced but could not be. With
    `is_strict`, none may differ but the result of a padding, which a convolution may cut off again.
    """
    values: dict[fx.Node, Any] = {}
    evaluate = MetaCalls()
    for node in graph.nodes:
        traced = node.meta.get("val")
        if node.op == "placeholder":
            values[node] = torch.empty(
                [sizes.replace(size, actual) for size in traced.shape], dtype=traced.dtype, device="meta"
            )
        elif node.op == "call_function" and traced is not None:  # checks inside a graph have no result
            values[node] = _evaluate(evaluate, node, values.__getitem__)
            _check_sizes(node, values[node], sizes, actual, is_strict=is_strict)


def fits(graph: fx.Graph, sizes: Sizes, actual: Mapping[str, int]) -> bool:
    """Whether the graph runs at these sizes when its literals are replaced, and every size is a product of names.

    Passes may write any size of a value as a literal.
    """
    try:
        propagate(at_sizes(graph, sizes, actual), sizes, actual, is_strict=True)
    except (VerifyError, SizeError):
        return False
    return True


def at_sizes(graph: fx.Graph, sizes: Sizes, actual: Mapping[str, int]) -> fx.Graph:
    """A copy of the graph with its literals replaced."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    for node in copy.nodes:
        if node.op == "call_function":
            node.args = _replaced(node.args, sizes, actual)
            node.kwargs = _replaced(node.kwargs, sizes, actual)
    return copy


def _replaced(value: Any, sizes: Sizes, actual: Mapping[str, int]) -> Any:
    return map_aggregate(value, lambda leaf: replace_literal(leaf, sizes, actual))


def _check_sizes(node: fx.Node, found: Any, sizes: Sizes, actual: Mapping[str, int], *, is_strict: bool) -> None:
    is_strict = is_strict and node.target is not torch.ops.aten.constant_pad_nd.default
    literals = {leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, int)}
    for new, old in zip(pytree.tree_leaves(found), pytree.tree_leaves(node.meta["val"]), strict=True):
        if not isinstance(old, Tensor):
            continue
        for size, traced in zip(new.shape, old.shape, strict=True):
            expected = sizes.replace(traced, actual)
            if size != expected and (is_strict or expected != traced or traced in literals):
                raise VerifyError(f"{node.name} ({node.target}) gives a size of {size}, expected {expected}")


def evaluate_on_meta(node: fx.Node, lookup: Callable[[fx.Node], Any]) -> Any:
    """The meta tensor(s) that a node's call returns for the meta tensors of its arguments."""
    args, kwargs = map_arg((node.args, node.kwargs), lookup)
    function: Any = node.target
    return function(*_on_meta(args), **_on_meta(kwargs))


def _evaluate(evaluate: MetaCalls, node: fx.Node, lookup: Callable[[fx.Node], Any]) -> Any:
    try:
        return evaluate(node, lookup)
    except (RuntimeError, ValueError, TypeError) as error:
        raise VerifyError(f"{node.name} ({node.target}) does not fit its arguments: {error}") from error


def _on_meta(value: Any) -> Any:
    return pytree.tree_map_only(torch.device, lambda _: torch.device("meta"), value)


def _compare(node: fx.Node, found: Any, expected: Any) -> None:
    for new, old in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        if isinstance(old, Tensor) and (new.shape != old.shape or new.dtype != old.dtype):
            raise VerifyError(
                f"{node.name} ({node.target}) gives {tuple(new.shape)} {new.dtype}, "
                f"but the graph says {tuple(old.shape)} {old.dtype}"
            )


def _no_input_returned(output: fx.Node) -> None:
    for node in output.all_input_nodes:
        if node.op == "placeholder":
            raise VerifyError(f"the result {node.name} is an input itself: replays would overwrite it")
