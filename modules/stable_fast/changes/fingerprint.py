"""Describes everything that affects a module's results besides its weights: parts, attributes and hooks.

Comparing two descriptions from the same process shows whether the module has changed since a program was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from modules.stable_fast.changes.adapters import STATE, is_lora

# Attributes that torch keeps in every module. The store watches the weights among them.
APART = vars(nn.Module()).keys() - {"_forward_hooks", "_forward_pre_hooks"}

_PLAIN = {type(None), bool, int, str}  # not float: a NaN differs from itself

Structure = list[tuple[str, type, Any, list[tuple[str, Any]]]]


class ForwardFront:
    """Base of what is called in place of a module's own forward with the same results. It is no part of the module."""


class _Same:
    """An object that equals only itself. It is kept alive, so that no later object reuses its address."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def structure_of(module: nn.Module) -> Structure:
    return [
        (
            path,
            type(part),
            type(part).forward,
            [(name, fact_of(value)) for name, value in vars(part).items() if name not in APART and name not in skipped],
        )
        for path, part in module.named_modules()
        for skipped in [STATE if is_lora(part) else ()]  # strengths count as weights
    ]


def has_state(value: Any) -> bool:
    """Whether this is an object that is called and may have attributes, such as an attention processor."""
    return callable(value) and hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module, ForwardFront))


def fact_of(value: Any, depth: int = 8) -> Any:
    """Plain values compare by value; others by identity, as do values so deeply nested that they may be recursive.

    Objects that are called, such as attention processors, also compare by their attributes.
    """
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if isinstance(value, (bool, int, float, str)):
        return kind, repr(value)
    items: Any = None
    if isinstance(value, (tuple, list)):
        items = value
    elif isinstance(value, Mapping):
        items = [item for pair in value.items() for item in pair]
    elif is_dataclass(value) and not isinstance(value, type):
        items = [getattr(value, item.name) for item in fields(value)]
    elif has_state(value):
        return _Same(value), [fact_of(item, depth - 1) for item in vars(value).values()] if depth else []
    if items is None or depth == 0:
        return _Same(value)
    return kind, [fact_of(item, depth - 1) for item in items]
