"""Converts a call to flat names for its tensors, constants and named sizes, and back.

A tuple `control` becomes `control_0`, `control_1`, ..., as in a traced graph. An entry of a dict and a field of an
object follow the same rule: `cond["text"]` becomes `cond_text`. The containers are those of containers.py.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.containers import keys_of, parts_of
from modules.stable_fast.graph.sizes import Dims


class Leaf(NamedTuple):
    """One value of a call: how a user would write it, and the names of the containers around it, outermost first."""

    value: Any
    path: str
    around: tuple[str, ...]


def flatten(example: Mapping[str, Any]) -> tuple[dict[str, Leaf], dict[str, str]]:
    """The values of a (possibly nested) call by flat name, and the kinds of the containers in it."""
    leaves: dict[str, Leaf] = {}
    kinds: dict[str, str] = {}

    def visit(value: Any, path: str, around: tuple[str, ...], name: str) -> None:
        parts = None if isinstance(value, Tensor) else parts_of(value)
        if parts is None:
            leaves[_unused(name, leaves)] = Leaf(value, path, around)
            return
        items, spec = parts
        if not items or type(value) is not tuple:
            kinds[name] = f"a {type(value).__name__}" + ("" if type(value) is list else f" {spec.context!r}")
        for key, step, item in zip(*keys_of(value, spec, len(items)), items, strict=True):
            visit(item, f"{path}{step}", (*around, name), re.sub(r"\W", "_", f"{name}_{key}"))

    for name, value in example.items():
        visit(value, name, (), name)
    return leaves, kinds


def flatten_inputs(example: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a (possibly nested) call by keyword, named like the graph's placeholders."""
    return {name: leaf.value for name, leaf in flatten(example)[0].items() if isinstance(leaf.value, Tensor)}


def flatten_constants(example: Mapping[str, Any]) -> dict[str, Any]:
    """The non-tensors of a (possibly nested) call, named in the same way. They are part of the graph.

    So is the kind of each container of tensors that is not a plain tuple.
    """
    leaves, kinds = flatten(example)
    return kinds | {name: leaf.value for name, leaf in leaves.items() if not isinstance(leaf.value, Tensor)}


def paths_of(example: Mapping[str, Any]) -> dict[str, str]:
    """Each value of a call as a user would write it, by flat name: `cond['text']`."""
    return {name: leaf.path for name, leaf in flatten(example)[0].items()}


def with_leaves(example: Mapping[str, Any], convert: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The call in the same containers, with convert(flat name, value) in place of each value."""
    leaves, _ = flatten(example)
    spec = pytree.tree_structure(dict(example))
    return pytree.tree_unflatten([convert(name, leaf.value) for name, leaf in leaves.items()], spec)


def in_new_containers(example: Mapping[str, Any]) -> dict[str, Any]:
    """The same values in containers of their own, since a module may change those it is given, such as a cache."""
    return with_leaves(example, lambda _, value: value)


def flatten_dims(dims: Mapping[str, Any]) -> dict[str, Dims]:
    """Dimension names of each flattened input. Tuples and dicts describe tuples and dicts of tensors."""
    flat: dict[str, Dims] = {}
    for name, value in dims.items():
        if isinstance(value, Mapping):
            flat |= flatten_dims({re.sub(r"\W", "_", f"{name}_{key}"): item for key, item in value.items()})
        elif any(isinstance(item, (tuple, Mapping)) for item in value):
            flat |= flatten_dims({f"{name}_{index}": item for index, item in enumerate(value) if item is not None})
        else:
            flat[name] = tuple(value)
    return flat


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """The name, made longer if another value of the call has it: `x_0` beside a tuple `x`."""
    while name in taken:
        name += "_"
    return name


def laid_out(module: nn.Module, call: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call; all by keyword if forward allows it."""
    signature = inspect.signature(module.forward)
    nameless = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    parameters = signature.parameters
    if not any(parameters[name].kind in nameless for name in call if name in parameters):
        return (), dict(call)
    arguments = {name: call[name] for name in parameters if name in call}
    others = {name: value for name, value in call.items() if name not in parameters}
    bound = inspect.BoundArguments(signature, OrderedDict(arguments))
    return bound.args, {**bound.kwargs, **others}
