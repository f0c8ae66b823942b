"""Scales in a graph: placeholders beside those of weights, which the passes add."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from modules.stable_fast.calibration.scales import SCALE
from modules.stable_fast.graph.plain_form import named_placeholder
from modules.stable_fast.passes.base import Editor

OF = "scale_of"  # where a placeholder remembers the weight


def scale_of(editor: Editor, weight: fx.Node) -> fx.Node:
    """The scale of the activation that is multiplied by this value of the weights stage."""
    while weight.op != "placeholder":
        weight = weight.all_input_nodes[0]
    calls = next(node for node in editor.graph.nodes if node.op != "placeholder")
    for node in editor.graph.nodes:
        if node.op == "placeholder" and node.meta.get(OF) == weight.name:
            return node
    with editor.graph.inserting_before(calls):
        node = named_placeholder(editor.graph, f"{OF}_{weight.name}")
    node.meta = {"val": torch.empty(1, dtype=torch.float32, device="meta"), "needs": frozenset(), OF: weight.name}
    return node


def with_scales(graph: fx.Graph, weights: Mapping[str, str]) -> dict[str, str]:
    """The names behind the placeholders of weights, and of the scales in use."""
    scales = {node.name: node.meta[OF] for node in graph.nodes if OF in node.meta and node.users}
    return {**weights, **{name: SCALE + weights.get(weight, weight) for name, weight in scales.items()}}
