"""Binding times: runs every node of a graph at the earliest moment its inputs are known.

Each named input is bound to a moment: "prompt" (once per conditioning), "time" (once per timestep, so for a whole
schedule at once), "latent" (each step, the same for both halves of guidance) or "step" (each step, any row). A node
needs what its arguments need, which determines its stage:

    weights    needs nothing but parameters       shared   needs "latent" and perhaps "time"
    prompt     needs only "prompt"                step     anything else
    time       needs only "time"
    schedule   needs both "prompt" and "time"

Operations that draw random numbers also belong to the step. The split is exact: the same operations run on the same
values, once each. Three stages see different rows from the traced batch: "time" sees one row per timestep, "schedule"
the whole batch once per timestep, "shared" one half of guidance. So only operations that treat rows independently go
there. A timestep without dimensions is spread over the batch by the module itself; "time" spreads it over one row.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.arguments import arguments
from modules.stable_fast.graph.layout import as_image, as_tokens
from modules.stable_fast.graph.plain_form import named_placeholder
from modules.stable_fast.graph.sizes import Sizes

STAGES = ("weights", "prompt", "time", "schedule", "shared", "step")
WEIGHTS, PROMPT, TIME, SCHEDULE, SHARED, STEP = STAGES
ROWS = "batch"  # the named size whose rows are independent pictures (and, with guidance, their two halves)
MOMENTS = ("prompt", "time", "latent", "step")

Needs = frozenset[str]

aten = torch.ops.aten

# Row i of the result depends only on row i of the arguments (dimension arguments are checked separately).
_ROW_WISE = frozenset(
    {
        operator.getitem, as_tokens, as_image,
        aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.pow.Tensor_Scalar,
        aten.exp.default, aten.sin.default, aten.cos.default, aten.sqrt.default, aten.rsqrt.default,
        aten.silu.default, aten.gelu.default, aten.relu.default, aten.sigmoid.default, aten.tanh.default,
        aten.dropout.default, aten.contiguous.default, aten.clone.default,
        aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default,
        aten.linear.default, aten.conv2d.default, aten.group_norm.default, aten.layer_norm.default,
        aten.scaled_dot_product_attention.default, aten.upsample_nearest2d.vec, aten.constant_pad_nd.default,
        aten.view.default, aten.reshape.default, aten.unsqueeze.default, aten.squeeze.dim, aten.flatten.using_ints,
        aten.permute.default, aten.transpose.int, aten.expand.default, aten._unsafe_view.default,
        aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor, aten.cat.default,
        aten.softmax.int,
    }
)  # fmt: skip

# Name of the dimension argument of operations that may mix the rows.
_DIM_ARGUMENT: dict[Any, str] = {
    aten.unsqueeze.default: "dim",
    aten.squeeze.dim: "dim",
    aten.chunk.default: "dim",
    aten.split.Tensor: "dim",
    aten.split_with_sizes.default: "dim",
    aten.slice.Tensor: "dim",
    aten.cat.default: "dim",
    aten.softmax.int: "dim",
    aten.flatten.using_ints: "start_dim",
}

# Arguments that stop an operation from drawing random numbers when they are False or 0.
_SWITCHES = ("train", "training", "dropout", "dropout_p")


@dataclass(frozen=True)
class Stage:
    """One part of the program: a graph from named values to named values."""

    name: str
    graph: fx.Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __len__(self) -> int:
        return sum(node.op == "call_function" for node in self.graph.nodes)

    def result(self, name: str) -> fx.Node:
        """The node that computes an output."""
        results: Any = self.graph.output_node().args[0]
        return results[self.outputs.index(name)]


def stage_of(needs: Needs) -> str:
    """The earliest stage at which everything needed is known."""
    if not needs:
        return WEIGHTS
    if needs == frozenset({"prompt"}):
        return PROMPT
    if needs == frozenset({"time"}):
        return TIME
    if needs == frozenset({"prompt", "time"}):
        return SCHEDULE
    return SHARED if needs <= {"latent", "time"} else STEP


def is_row_wise(node: fx.Node, sizes: Sizes) -> bool:
    """Whether each row of the result (dimension 0) is computed from the same row of the arguments, or is like all."""
    namespace = getattr(node.target, "namespace", "")
    if node.target not in _ROW_WISE and namespace != "lightdiffusion":
        return False
    if not any(has_rows(source, sizes) for source in node.all_input_nodes):
        return True
    if node.target in (aten.permute.default, aten.transpose.int):
        return _keeps_first_dim(node)
    if node.target in _DIM_ARGUMENT:
        dim = getattr(arguments(node), _DIM_ARGUMENT[node.target])
        source = node.all_input_nodes[0].meta["val"]
        rank = source.dim() + (node.target == aten.unsqueeze.default)
        return isinstance(dim, int) and dim % rank != 0
    return True


def _keeps_first_dim(node: fx.Node) -> bool:
    rank = node.all_input_nodes[0].meta["val"].dim()
    given = arguments(node)
    if node.target == aten.permute.default:
        return given.dims[0] % rank == 0
    return given.dim0 % rank != 0 and given.dim1 % rank != 0


def label(graph: fx.Graph, bindings: Mapping[str, str], sizes: Sizes) -> None:
    """Writes `meta["needs"]` on every node; `bindings` maps input placeholders to moments."""
    for node in graph.nodes:
        if node.op == "placeholder":
            node.meta["needs"] = frozenset({bindings[node.name]}) if node.name in bindings else frozenset()
        elif node.op == "call_function":
            node.meta["needs"] = needs_of(node, sizes)


def needs_of(node: fx.Node, sizes: Sizes) -> Needs:
    """A node's needs: everything its arguments need, plus "step" if it must see the traced batch or size.

    A node that draws random numbers also needs "step", since the numbers differ in each call.
    """
    needs = frozenset[str]().union(*(source.meta["needs"] for source in node.all_input_nodes))
    if draws(node):
        return needs | {"step"}
    if (
        stage_of(needs) in (TIME, SCHEDULE, SHARED)
        and ROWS in sizes.primes
        and not (is_row_wise(node, sizes) and _rows_first(node, sizes))
    ):
        return needs | {"step"}
    if not needs and sizes.names_in((*_shape(node), *_literals(node))):
        return needs | {"step"}  # made from a size alone, such as arange(height) or arange(1) + past
    return needs


def draws(node: fx.Node) -> bool:
    """Whether a call draws random numbers, so that its result differs each time."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    given = arguments(node)
    return all(getattr(given, switch, True) for switch in _SWITCHES)


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _literals(node: fx.Node) -> list[int]:
    """The whole numbers among a call's arguments."""
    return [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if type(leaf) is int]


def _rows_first(node: fx.Node, sizes: Sizes) -> bool:
    return ROWS not in sizes.names_in(_shape(node)[1:])


def has_rows(node: fx.Node, sizes: Sizes) -> bool:
    """Whether the value has one entry for each row of the batch (in dimension 0)."""
    return ROWS in sizes.primes and ROWS in sizes.names_in(_shape(node)[:1])


def split(graph: fx.Graph) -> dict[str, Stage]:
    """The six stages of a labelled graph. Values passed between stages are named after their nodes."""
    return {name: _extract(graph, name) for name in STAGES}


def _is_in(node: fx.Node, stage: str) -> bool:
    return node.op == "call_function" and stage_of(node.meta["needs"]) == stage


def _extract(graph: fx.Graph, stage: str) -> Stage:
    members = [node for node in graph.nodes if _is_in(node, stage)]
    inside = set(members)
    inputs = _unique(source for node in members for source in node.all_input_nodes if source not in inside)
    outputs = [node for node in members if any(user not in inside for user in node.users)]
    part = fx.Graph()
    copies = {source: _placeholder(part, source) for source in inputs}
    for source in inputs:
        if stage_of(source.meta["needs"]) == TIME and not all(_broadcasts(user, source) for user in source.users):
            copies[source] = _expanded(part, copies[source])
    for node in members:
        copies[node] = part.node_copy(node, lambda source: copies[source])
    part.output(tuple(copies[node] for node in outputs))
    return Stage(stage, part, tuple(node.name for node in inputs), tuple(node.name for node in outputs))


def _placeholder(graph: fx.Graph, source: fx.Node) -> fx.Node:
    node = named_placeholder(graph, source.name)
    node.meta = dict(source.meta)
    return node


def _broadcasts(user: fx.Node, source: fx.Node) -> bool:
    """Whether `user` can use one row of `source` for the whole batch."""
    if user.target in (torch.ops.lightdiffusion.conv2d_epilogue.default, torch.ops.lightdiffusion.conv2d_eight.default):
        conv = arguments(user)
        return source is conv.vector and source not in (user.args[0], conv.residual)
    if user.target in (aten.add.Tensor, aten.mul.Tensor):
        others = [other for other in user.all_input_nodes if other is not source]
        return any(
            _shape(other)[:1] == _shape(source)[:1] and len(_shape(other)) == len(_shape(source)) for other in others
        )
    return stage_of(user.meta.get("needs", frozenset({"step"}))) == TIME


def _expanded(graph: fx.Graph, row: fx.Node) -> fx.Node:
    """The row expanded (without a copy) to the traced shape, for users that do not broadcast."""
    node = graph.call_function(aten.expand.default, (row, list(_shape(row))))
    node.meta = dict(row.meta)
    return node


def _unique(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    return list(dict.fromkeys(nodes))


def result_names(graph: fx.Graph) -> tuple[str, ...]:
    """Names of the values that the graph returns."""
    output = next(iter(reversed(graph.nodes)))
    return tuple(node.name for node in output.args[0])


def lent_results(stages: Mapping[str, Stage], names: Iterable[str]) -> frozenset[str]:
    """Results that do not own their memory: it is kept for later calls, or belongs to an input or an earlier result."""
    taken: set[tuple[str, str]] = set()
    lent: set[str] = set()
    for name in names:
        owner = _owner(stages, name)
        if owner[0] not in (SHARED, STEP) or owner in taken:  # these two stages make new results in each call
            lent.add(name)
        taken.add(owner)
    return frozenset(lent)


def _owner(stages: Mapping[str, Stage], name: str) -> tuple[str, str]:
    """Stage (none for an input) and name of the value that owns this value's memory."""
    for stage in stages.values():
        if name in stage.outputs:
            node = _viewed(stage.result(name))
            return _owner(stages, node.name) if node.op == "placeholder" else (stage.name, node.name)
    return "", name


def _viewed(node: fx.Node) -> fx.Node:
    """The earliest node whose memory this node may share, according to the operators' schemas."""
    while node.op == "call_function" and _may_be_view(node):
        node = node.all_input_nodes[0]
    return node


def _may_be_view(node: fx.Node) -> bool:
    if isinstance(node.target, OpOverload):
        operation: Any = node.target
        return any(value.alias_info is not None for value in operation._schema.returns)
    return node.target in (operator.getitem, as_tokens, as_image)
