"""Converts a call to flat names for its tensors, constants and named sizes, and back.

A tuple `control` becomes `control_0`, `control_1`, ..., as in a traced graph.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modules.stable_fast.graph.sizes import Dims


def flatten_inputs(example: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a (possibly nested) call by keyword, named like the graph's placeholders."""
    flat: dict[str, Tensor] = {}
    for name, value in example.items():
        if isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, (tuple, list)):
            flat |= flatten_inputs({f"{name}_{index}": item for index, item in enumerate(value)})
    return flat


def flatten_constants(example: Mapping[str, Any]) -> dict[str, Any]:
    """The non-tensors of a (possibly nested) call, named in the same way. They are part of the graph.

    So is the type of each container of tensors that is not a plain tuple.
    """
    flat: dict[str, Any] = {}
    for name, value in example.items():
        if isinstance(value, (tuple, list)):
            if not value or type(value) is not tuple:
                flat[name] = f"a {type(value).__name__}"
            flat |= flatten_constants({f"{name}_{index}": item for index, item in enumerate(value)})
        elif not isinstance(value, Tensor):
            flat[name] = value
    return flat


def flatten_dims(dims: Mapping[str, Any]) -> dict[str, Dims]:
    """Dimension names of each flattened input. A tuple of tuples describes a tuple of tensors."""
    flat: dict[str, Dims] = {}
    for name, value in dims.items():
        if any(isinstance(item, tuple) for item in value):
            flat |= flatten_dims({f"{name}_{index}": item for index, item in enumerate(value)})
        else:
            flat[name] = tuple(value)
    return flat


def rebuilt(container: Sequence[Any], items: Iterable[Any]) -> Sequence[Any]:
    """The items in a container of the same kind: a list, tuple or named tuple."""
    kind: Any = type(container)
    return kind._make(items) if hasattr(kind, "_make") else kind(list(items))


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
