"""Invariants of a graph: it is well formed, its metadata is true, and every literal fits the sizes it is used at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from modules.stable_fast.sizes import Sizes


class VerifyError(RuntimeError):
    """A graph that breaks an invariant; always a bug in a pass, or sizes that the graph cannot serve."""


def check(graph: fx.Graph) -> None:
    """Lints the graph and recomputes every node's metadata from its arguments'."""
    graph.lint()
    for node in graph.nodes:
        if node.op == "call_function":
            _compare(node, _evaluate(node, lambda source: source.meta["val"]), node.meta["val"])
        if node.op == "output":
            _no_input_returned(node)


def propagate(graph: fx.Graph, sizes: Sizes, actual: Mapping[str, int]) -> None:
    """Runs a graph whose literals were replaced on meta tensors: each result must have the traced shape, so replaced."""
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        expected = pytree.tree_map_only(Tensor, lambda value: _resized(value, sizes, actual), node.meta.get("val"))
        if node.op == "placeholder":
            values[node] = expected
        elif node.op == "call_function":
            values[node] = _evaluate(node, values.__getitem__)
            _compare(node, values[node], expected)


def _resized(value: Tensor, sizes: Sizes, actual: Mapping[str, int]) -> Tensor:
    shape = [sizes.replace(size, actual) for size in value.shape]
    return torch.empty(shape, dtype=value.dtype, device="meta")


def evaluate_on_meta(node: fx.Node, lookup: Callable[[fx.Node], Any]) -> Any:
    """The meta tensor(s) that a node's call gives for the meta tensors of its arguments."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lookup)
    return node.target(*_on_meta(args), **_on_meta(kwargs))


def _evaluate(node: fx.Node, lookup: Callable[[fx.Node], Any]) -> Any:
    try:
        return evaluate_on_meta(node, lookup)
    except (RuntimeError, ValueError, TypeError) as error:
        raise VerifyError(f"{node.name} ({node.target}) does not fit its arguments: {error}") from error


def _on_meta(value: Any) -> Any:
    return pytree.tree_map_only(torch.device, lambda _: torch.device("meta"), value)


def _compare(node: fx.Node, found: Any, expected: Any) -> None:
    for new, old in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        if isinstance(old, Tensor) and (new.shape != old.shape or new.dtype != old.dtype):
            raise VerifyError(
                f"{node.name} ({node.target}) gives {tuple(new.shape)} {new.dtype}, "
                f"recorded are {tuple(old.shape)} {old.dtype}"
            )


def _no_input_returned(output: fx.Node) -> None:
    for node in output.all_input_nodes:
        if node.op == "placeholder":
            raise VerifyError(f"the result {node.name} is an input itself: replays would overwrite it")
