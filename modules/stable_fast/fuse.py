"""From a module to its fused graph: trace it, label what each operation needs, run the passes, check the result."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.graph.flatten import flatten
from modules.stable_fast.graph.serialize import Fused
from modules.stable_fast.graph.staging import label
from modules.stable_fast.graph.trace import trace
from modules.stable_fast.graph.verify import check
from modules.stable_fast.passes import FusionPass, run_passes
from modules.stable_fast.passes.base import count_calls
from modules.stable_fast.passes.eight_bits.scales import with_scales


def fuse(
    module: nn.Module,
    example: Mapping[str, Any],
    bindings: Mapping[str, str],
    dims: Mapping[str, Any],
    passes: Sequence[FusionPass],
    place: torch.device | None = None,
) -> Fused:
    """The module's graph, labelled and after all passes; with `place`, as if its weights were on that device."""
    with _collecting_later():
        traced = trace(module, example, dims, place)
        nodes_before = count_calls(traced.graph)
        label(traced.graph, moments_of(example, bindings), traced.sizes)
        matches = run_passes(traced.graph, traced.sizes, passes)
        check(traced.graph)
    return Fused(replace(traced, weights=with_scales(traced.graph, traced.weights)), nodes_before, matches)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Leaves rings of unused objects in memory until the end: to look for them again and again takes a quarter of the
    time, since a trace makes hundreds of thousands of objects that stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def moments_of(example: Mapping[str, Any], bindings: Mapping[str, str]) -> dict[str, str]:
    """The moment at which each flattened input becomes known: its own, or that of the nearest container around it."""
    leaves, _ = flatten(example)
    tensors = {name: leaf.around for name, leaf in leaves.items() if isinstance(leaf.value, Tensor)}
    return {
        name: next((bindings[each] for each in (name, *reversed(around)) if each in bindings), "step")
        for name, around in tensors.items()
    }
