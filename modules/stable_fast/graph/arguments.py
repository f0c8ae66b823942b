"""Looks up the arguments of a call in a graph by their declared names instead of by position."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from torch import fx


@cache
def _declared(operator: Any) -> dict[str, Any]:
    """Argument names and default values in schema order; None where there is no default."""
    arguments = operator._schema.arguments
    return {argument.name: argument.default_value if argument.has_default_value() else None for argument in arguments}


def arguments(node: fx.Node) -> Any:
    """All arguments of a torch operator call, however they were passed: `arguments(node).weight`."""
    declared = _declared(node.target)
    return SimpleNamespace(**declared | dict(zip(declared, node.args, strict=False)) | node.kwargs)


def source_of(node: fx.Node) -> fx.Node:
    """The value that an operation works on: its first argument."""
    source: Any = node.args[0]
    return source
