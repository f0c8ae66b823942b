"""The containers that a call or a result may hold: those of torch's pytrees, and any object that holds tensors.

Tuples, dicts, named tuples, and the results of diffusers and transformers are known to torch. Other objects, such as
dataclasses, distributions and caches, are made known by their type when the first one occurs.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

_PLAIN = (Tensor, bool, int, float, str, type(None), nn.Module, type)
_DEPTH = 4  # how deep objects are searched for tensors: a cache holds a list of layers, which hold tensors


@dataclass(frozen=True)
class Fixed:
    """Stands for a non-tensor value in the structure of a result, and is turned back into that value."""

    value: Any


pytree.register_pytree_node(Fixed, lambda fixed: ([], fixed.value), lambda _, value: value)


def make_known(value: Any, depth: int = _DEPTH) -> bool:
    """Whether `value` holds a tensor. Makes each kind of object in it that holds one known to torch's pytrees."""
    if isinstance(value, Tensor):
        return True
    if depth == 0 or isinstance(value, _PLAIN):
        return False
    is_leaf = pytree.tree_structure(value, is_leaf=lambda item: item is not value).is_leaf()
    inside = vars(value).values() if is_leaf and hasattr(value, "__dict__") else [] if is_leaf else _items(value)[0]
    found = [make_known(item, depth - 1) for item in inside]
    if is_leaf and any(found):
        pytree.register_pytree_node(type(value), _fields_of, _with_fields, flatten_with_keys_fn=_named_fields_of)
    return any(found)


class _Kind(NamedTuple):
    """The type of an object, the names of its fields that are values of a call, and its other fields."""

    type: type
    names: tuple[str, ...]
    others: tuple[tuple[str, Any], ...]


def _fields_of(value: Any) -> tuple[list[Any], _Kind]:
    fields = vars(value)
    names = tuple(name for name, item in fields.items() if _is_value(item))
    others = tuple((name, item) for name, item in fields.items() if not _is_value(item))
    return [fields[name] for name in names], _Kind(type(value), names, others)


def _named_fields_of(value: Any) -> tuple[list[tuple[Any, Any]], _Kind]:
    items, kind = _fields_of(value)
    return [(pytree.GetAttrKey(name), item) for name, item in zip(kind.names, items, strict=True)], kind


def _is_value(item: Any) -> bool:
    """Whether a field can change from call to call: a number, or something with tensors. Flags belong to the object."""
    return (
        (isinstance(item, (int, float)) and not isinstance(item, bool)) or isinstance(item, Fixed) or make_known(item)
    )


def _with_fields(items: Any, kind: _Kind) -> Any:
    result = object.__new__(kind.type)
    vars(result).update(kind.others, **dict(zip(kind.names, items, strict=True)))
    return result


def _items(value: Any) -> tuple[list[Any], pytree.TreeSpec]:
    return pytree.tree_flatten(value, is_leaf=lambda item: item is not value)


def parts_of(value: Any) -> tuple[list[Any], pytree.TreeSpec] | None:
    """The parts of a container, and how to build it from them; None for anything else."""
    if isinstance(value, _PLAIN):
        return None
    items, spec = _items(value)
    if not spec.is_leaf():
        return items, spec
    return _items(value) if make_known(value) else None


def keys_of(value: Any, spec: pytree.TreeSpec, count: int) -> tuple[list[str], list[str]]:
    """How each part is called, in flat names and as a user would write it after the container."""
    if isinstance(spec.context, _Kind):
        return list(spec.context.names), [f".{name}" for name in spec.context.names]
    keys = list(value) if isinstance(value, Mapping) and len(value) == count else list(range(count))
    return [str(key) for key in keys], [f"[{key!r}]" for key in keys]


class Containers:
    """Watches one run of a module for inputs, such as lists, whose contents it changes.

    `changed`: the name of one that is not among the results either, so that the change would be lost; "" if none is.
    """

    def __init__(self, module: nn.Module) -> None:
        self.changed = ""
        self._before: dict[str, list[Any]] = {}
        module.register_forward_pre_hook(self._look_before, with_kwargs=True)
        module.register_forward_hook(self._look_after, with_kwargs=True)

    def _look_before(self, _module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._before = {name: pytree.tree_leaves(value) for name, value in _by_name(args, kwargs).items()}

    def _look_after(self, _module: nn.Module, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        for name, value in _by_name(args, kwargs).items():
            before, after = self._before[name], pytree.tree_leaves(value)
            is_same = len(before) == len(after) and all(map(operator.is_, before, after))
            if not is_same and not _holds(result, value):
                self.changed = name


def _by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**{str(place): value for place, value in enumerate(args)}, **kwargs}


def _holds(result: Any, part: Any) -> bool:
    """Whether this very object is somewhere in a result."""
    return any(leaf is part for leaf in pytree.tree_leaves(result, is_leaf=lambda item: item is part))
