"""Brings an exported program into the plain form that passes read: no regions, and nothing written in place.

A region is a part inside `torch.autocast`, `torch.no_grad` or `torch.enable_grad`. Export keeps it as a graph of its
own. In the plain form its operations stand in line, and autocast's conversions are operations too.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.sizes import Sizes

if TYPE_CHECKING:
    from torch.export import ExportedProgram  # the import takes seconds, and a kept graph does without it

aten = torch.ops.aten
_NORM = aten._native_batch_norm_legit_no_training.default


def in_plain_form(program: ExportedProgram) -> ExportedProgram:
    graph = program.graph_module.graph
    if not _writes_in_place(graph) and not _has_regions(graph):
        return program
    program = program.run_decompositions({})  # keeps the operations named in trace.py
    for node in list(program.graph.nodes):
        if node.target is _NORM:
            _as_batch_norm(program.graph, node)
    return program


def _writes_in_place(graph: fx.Graph) -> bool:
    """ATen names of in-place operations end with an underscore: aten.add_.Tensor."""
    names = (str(node.target).split(".") for node in graph.nodes if node.op == "call_function")
    return any(len(name) == 3 and name[1].endswith("_") for name in names)


def _has_regions(graph: fx.Graph) -> bool:
    return any(isinstance(node.target, HigherOrderOperator) for node in graph.nodes)


def _as_batch_norm(graph: fx.Graph, node: fx.Node) -> None:
    """Writes the inner form of BatchNorm, which has three results, as the operation with one."""
    x, weight, bias, mean, variance, momentum, epsilon = node.args
    for user in list(node.users):
        if user.target is not operator.getitem or user.args[1] != 0:
            continue
        with graph.inserting_before(node):
            plain = graph.call_function(
                aten.batch_norm.default, (x, weight, bias, mean, variance, False, momentum, epsilon, False)
            )
        plain.meta = dict(user.meta)
        user.replace_all_uses_with(plain)
        graph.erase_node(user)
    if not node.users:
        graph.erase_node(node)


def copied(graph: fx.Graph, names: Mapping[str, str]) -> fx.Graph:
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


def fills(graph: fx.Graph, name: str, constant: Tensor, sizes: Sizes) -> bool:
    """Writes a constant as a call if it is one number repeated by a named size: `torch.tensor([0] * batch)`.

    Returns whether it is.
    """
    numbers = constant.unique().tolist() if sizes.names_in(constant.shape) else []
    if len(numbers) != 1:
        return False
    node = next(node for node in graph.nodes if node.name == name)
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        filled = graph.call_function(
            aten.full.default,
            (list(constant.shape), numbers[0]),
            {"dtype": constant.dtype, "device": constant.device, "pin_memory": False},
        )
    filled.meta = dict(node.meta)
    node.replace_all_uses_with(filled)
    graph.erase_node(node)
    return True


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
