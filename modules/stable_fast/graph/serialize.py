"""Fused graphs as JSON and back: nodes by name, operators by name, shapes without memory.

A file from someone else cannot run code, either when it is loaded or when its graph runs. Its values are numbers,
strings, containers and torch constants, and nothing is unpickled or imported. It can call only three functions and the
operators of operators.py. FX puts its names into the Python source of a graph, so they have to be identifiers. At worst
such a graph computes something else, or fails.
"""

from __future__ import annotations

import base64
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.containers import Fixed
from modules.stable_fast.graph.layout import as_image, as_tokens
from modules.stable_fast.graph.operators import may_be_kept, operator_called
from modules.stable_fast.graph.plain_form import named_placeholder
from modules.stable_fast.graph.sizes import Formula, Sizes, Term
from modules.stable_fast.graph.trace import Traced

MAX_CONSTANT_BYTES = 1 << 20
_FUNCTIONS: dict[str, Any] = {"getitem": operator.getitem, "as_tokens": as_tokens, "as_image": as_image}
# Encodings of values that JSON does not have: {"dtype": "float16"}. All except devices are called torch.<name>.
_NAMED = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format, "device": torch.device}


class NotKept(Exception):
    """Part of this module or graph cannot be described faithfully, so it is not saved to disk."""


@dataclass(frozen=True)
class Fused:
    """A traced graph after all passes, and the number of their matches."""

    traced: Traced
    nodes_before: int
    matches: Mapping[str, Mapping[str, int]]


def encode_graph(fused: Fused) -> dict[str, Any]:
    """Raises NotKept if something cannot be described faithfully."""
    traced = fused.traced
    results: Any = next(iter(reversed(traced.graph.nodes))).args[0]
    return {
        "nodes": [_encode_node(node) for node in traced.graph.nodes],
        "weights": dict(traced.weights),
        "constants": {name: _encode_constant(tensor) for name, tensor in traced.constants.items()},
        "inputs": traced.inputs,
        "dims": dict(traced.dims),
        "primes": dict(traced.sizes.primes),
        "formulas": [[literal, formula] for literal, formula in traced.sizes.formulas.items()],
        "result": _encode_result(pytree.tree_unflatten([node.meta["val"] for node in results], traced.out_spec)),
        "nodes_before": fused.nodes_before,
        "matches": fused.matches,
    }


def decode_graph(kept: Mapping[str, Any]) -> Fused:
    """Raises ValueError, LookupError, TypeError or AttributeError for anything not written by `encode_graph`."""
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    if not isinstance(kept["nodes"], list) or kept["nodes"][-1]["op"] != "output":
        raise ValueError("its graph has no end")
    for item in kept["nodes"]:
        if not item["name"].isidentifier():
            raise ValueError(f"{item['name']} is not a name")
        node = _decode_node(graph, item, nodes)
        if node.name != item["name"]:
            raise ValueError(f"a node is called {node.name}, not {item['name']}")
        nodes[node.name] = node
    traced = Traced(
        graph=graph,
        weights=kept["weights"],
        constants={name: _decode_constant(item) for name, item in kept["constants"].items()},
        inputs=tuple(kept["inputs"]),
        dims={name: tuple(dims) for name, dims in kept["dims"].items()},
        sizes=Sizes(kept["primes"], {literal: _decode_formula(terms) for literal, terms in kept["formulas"]}),
        out_spec=pytree.tree_structure(_decode_value(kept["result"], {})),
    )
    return Fused(traced, kept["nodes_before"], kept["matches"])


def _decode_formula(terms: Any) -> Formula:
    return tuple(Term(numerator, denominator, tuple(names)) for numerator, denominator, names in terms)


def _encode_node(node: fx.Node) -> dict[str, Any]:
    item = {"op": node.op, "name": node.name, "args": _encode_value(node.args), "kwargs": _encode_value(node.kwargs)}
    if node.op == "call_function":
        item["target"] = _target_name(node.target)
    return item | {"val": _encode_meta(node.meta.get("val")), "needs": sorted(node.meta.get("needs", ()))}


def _decode_node(graph: fx.Graph, item: Mapping[str, Any], nodes: Mapping[str, fx.Node]) -> fx.Node:
    args, kwargs = _decode_value(item["args"], nodes), _decode_value(item["kwargs"], nodes)
    if not all(name.isidentifier() for name in kwargs):
        raise ValueError(f"{list(kwargs)} are not names of arguments")
    if item["op"] == "output":
        return graph.output(args[0])
    if item["op"] == "placeholder":
        node = named_placeholder(graph, item["name"])
    else:
        node = graph.create_node("call_function", _target(item["target"]), args, kwargs, item["name"])
    node.meta["val"] = _decode_meta(item["val"])
    node.meta["needs"] = frozenset(item["needs"])
    return node


def _target_name(target: Any) -> str:
    if may_be_kept(target):
        return str(target)
    name = getattr(target, "__name__", "")
    if _FUNCTIONS.get(name) is not target:
        raise NotKept(f"it calls {target}")
    return name


def _target(name: str) -> Any:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    return operator_called(name)


def _encode_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, fx.Node):
        return {"node": value.name}
    for kind, named in _NAMED.items():
        if isinstance(value, named):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, tuple):
        return {"tuple": [_encode_value(item) for item in value]}
    if isinstance(value, list):
        return [_encode_value(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {name: _encode_value(item) for name, item in value.items()}}
    raise NotKept(f"an argument is a {type(value).__name__}")


def _decode_value(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decode_value(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "tuple":
        return tuple(_decode_value(item, nodes) for item in content)
    if kind == "dict":
        return {name: _decode_value(item, nodes) for name, item in content.items()}
    if kind == "fixed":
        return Fixed(_decode_value(content, nodes))
    return torch.device(content) if kind == "device" else _torch_value(kind, content)


def _torch_value(kind: str, name: str) -> Any:
    value = getattr(torch, name)
    if not isinstance(value, _NAMED[kind]):
        raise ValueError(f"torch.{name} is not a {kind}")
    return value


def _encode_result(value: Any) -> Any:
    """The structure of a result, without its tensors. Only values that JSON restores unchanged are allowed."""
    if value is None or type(value) in (bool, int, float, str):
        return {"fixed": value}
    if type(value) is tuple:
        return {"tuple": [_encode_result(item) for item in value]}
    if type(value) is list:
        return [_encode_result(item) for item in value]
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encode_result(item) for name, item in value.items()}}
    if isinstance(value, Tensor):
        return None
    raise NotKept(f"its result is a {type(value).__name__}")


def _encode_meta(value: Any) -> Any:
    """Shapes of a value, or of a list of them."""
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "stride": value.stride(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        return [_encode_meta(item) for item in value]
    return _encode_value(value)


def _decode_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode_meta(item) for item in value]
    if not isinstance(value, dict):
        return value
    dtype = _torch_value("dtype", value["dtype"])
    return torch.empty_strided(value["shape"], value["stride"], dtype=dtype, device="meta")


def _encode_constant(tensor: Tensor) -> dict[str, Any]:
    if tensor.nbytes > MAX_CONSTANT_BYTES:
        raise NotKept("it made a large tensor while it was traced")
    data = tensor.detach().cpu().contiguous()
    raw = bytes(data.flatten().view(torch.uint8).tolist())
    kept = {"data": base64.b64encode(raw).decode(), "device": str(tensor.device)}
    return kept | {"shape": list(data.shape), "dtype": str(data.dtype).removeprefix("torch.")}


def _decode_constant(kept: Mapping[str, Any]) -> Tensor:
    dtype = _torch_value("dtype", kept["dtype"])
    raw = torch.tensor(list(base64.b64decode(kept["data"])), dtype=torch.uint8)
    return raw.view(dtype).reshape(kept["shape"]).to(kept["device"])
