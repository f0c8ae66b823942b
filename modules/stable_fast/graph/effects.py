"""Refuses to trace a module that changes something while it runs: a graph would change it once and never again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from modules.stable_fast.graph.errors import TraceError
from modules.stable_fast.graph.fingerprint import fact_of, has_state

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """Attributes of the module and its parts that may be counters or switches, and objects that may hold some."""
    return {
        f"{path}.{name}".removeprefix("."): repr(value) if is_plain else fact_of(value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        for is_plain in [value is None or isinstance(value, (bool, int, float, str))]
        if is_plain or has_state(value)
    }


def check_effects(
    program: ExportedProgram, before: Mapping[str, Any], after: Mapping[str, Any], paths: Mapping[str, str]
) -> None:
    """Raises TraceError for attributes that differ after the call, and for buffers and inputs that it writes to."""
    for name in (*before, *after) if after else ():  # empty if the hook did not run
        if before.get(name) != after.get(name):
            raise TraceError(f"it changes its own attribute {name} while it runs")
    signature = program.graph_signature
    for name in signature.buffers_to_mutate.values():
        raise TraceError(f"it changes its own buffer {name} while it runs")
    for name in signature.user_inputs_to_mutate.values():
        raise TraceError(f"it writes to its input {paths.get(name, name)}")
    for node in program.graph.nodes:
        if node.op == "call_function" and "as_strided" in str(node.target):
            raise TraceError("it reads memory by strides (as_strided), and Stable-Fast has a layout of its own")
