"""From a module to its fused graph: trace it, label what each operation needs, run the passes, check the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from modules.stable_fast.graph.serialize import Fused
from modules.stable_fast.graph.staging import label
from modules.stable_fast.graph.trace import trace
from modules.stable_fast.graph.verify import check
from modules.stable_fast.passes import FusionPass, run_passes
from modules.stable_fast.passes.base import count_calls


def fuse(
    module: nn.Module,
    example: Mapping[str, Any],
    bindings: Mapping[str, str],
    dims: Mapping[str, Any],
    passes: Sequence[FusionPass],
) -> Fused:
    """The module's graph, labelled and after all passes."""
    traced = trace(module, example, dims)
    nodes_before = count_calls(traced.graph)
    label(traced.graph, moments_of(traced.inputs, bindings), traced.sizes)
    matches = run_passes(traced.graph, traced.sizes, passes)
    check(traced.graph)
    return Fused(traced, nodes_before, matches)


def moments_of(inputs: Iterable[str], bindings: Mapping[str, str]) -> dict[str, str]:
    """The moment at which each flattened input becomes known."""
    return {name: bind(name, bindings) for name in inputs}


def bind(name: str, bindings: Mapping[str, str]) -> str:
    """The moment of a flattened input: `control_3` has the moment of `control`."""
    head, _, tail = name.rpartition("_")
    if name in bindings or not tail.isdecimal():
        return bindings.get(name, "step")
    return bind(head, bindings)
