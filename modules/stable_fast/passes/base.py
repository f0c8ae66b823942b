"""What a fusion pass is made of: rules that rewrite one node, match counts, and metadata that stays true."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

import modules.stable_fast.kernels  # noqa: F401  registers torch.ops.lightdiffusion, which the passes name
from modules.stable_fast.graph.sizes import Sizes
from modules.stable_fast.graph.staging import needs_of, stage_of
from modules.stable_fast.graph.verify import evaluate_on_meta

aten = torch.ops.aten

Rewrite = Callable[["Editor", fx.Node], bool]


@dataclass(frozen=True)
class Rule:
    """Looks at each node that calls one of `anchors`, the last operation of the pattern; True when it rewrote it."""

    name: str
    anchors: tuple[Any, ...]
    rewrite: Rewrite


@dataclass(frozen=True)
class FusionPass:
    """Rules that belong together; they run until none of them matches.

    `adds_weights`: it pays for speed with prepared weights beside the network's own.
    """

    name: str
    rules: tuple[Rule, ...]
    adds_weights: bool = False


class Editor:
    """Edits a labelled graph: new nodes get metadata and needs, replaced ones go with all that only they used."""

    def __init__(self, graph: fx.Graph, sizes: Sizes) -> None:
        self.graph = graph
        self.sizes = sizes

    def call(self, before: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A new call, placed before a node that all its arguments precede."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, args, kwargs)
        node.meta["val"] = evaluate_on_meta(node, lambda source: source.meta["val"])
        node.meta["needs"] = needs_of(node, self.sizes)
        return node

    def hoist(self, node: fx.Node, before: fx.Node) -> None:
        """Moves a call, with the arguments it needs, up to a node that it has to precede."""
        if node.op == "call_function" and before < node:
            for source in node.all_input_nodes:
                self.hoist(source, before)
            before.prepend(node)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        old.replace_all_uses_with(new)
        self.erase_unused(old)

    def erase_unused(self, node: fx.Node) -> None:
        """Erases a node without users, and then its arguments that have become so."""
        pending = [node]
        while pending:
            candidate = pending.pop()
            if not candidate.users and candidate.op == "call_function":
                sources = list(dict.fromkeys(candidate.all_input_nodes))
                self.graph.erase_node(candidate)
                pending += [source for source in sources if not source.users]


def is_call(node: Any, *targets: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that uses this value once, or None."""
    users = list(node.users)
    if len(users) != 1 or users[0].op == "output":
        return None
    return users[0] if list(users[0].all_input_nodes).count(node) == 1 else None


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument however it was passed."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def dtype_of(node: fx.Node) -> Any:
    return node.meta["val"].dtype


def count_calls(graph: fx.Graph) -> int:
    return sum(node.op == "call_function" for node in graph.nodes)


def same_stage(first: fx.Node, second: fx.Node) -> bool:
    """Whether fusing the two delays neither: an early result must not be pulled into every step."""
    return stage_of(first.meta["needs"]) == stage_of(second.meta["needs"])


def is_tensor(node: Any) -> bool:
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor)


def run_pass(fusion: FusionPass, editor: Editor) -> Counter[str]:
    """Sweeps over the graph until no rule matches; the number of matches of each rule."""
    matches: Counter[str] = Counter()
    by_anchor: dict[Any, list[Rule]] = {}
    for rule in fusion.rules:
        for anchor in rule.anchors:
            by_anchor.setdefault(anchor, []).append(rule)
    while _sweep(by_anchor, editor, matches):
        pass
    return matches


def _sweep(by_anchor: dict[Any, list[Rule]], editor: Editor, matches: Counter[str]) -> bool:
    before = matches.total()
    for node in list(editor.graph.nodes):
        if node.op != "call_function" or not node.users:
            continue  # erased, or about to be
        for rule in by_anchor.get(node.target, ()):
            if rule.rewrite(editor, node):
                matches[rule.name] += 1
                break
    return matches.total() > before


def part_of(node: Any, parts: int) -> tuple[fx.Node, int] | None:
    """(x, i) when the node is the i-th of `parts` equal pieces of x along its last dimension."""
    if not is_call(node, operator.getitem):
        return None
    pieces = node.args[0]
    if not is_call(pieces, aten.chunk.default, aten.split.Tensor):
        return None
    whole = pieces.args[0]
    rank = len(shape(whole))
    along_last = argument(pieces, 2, "dim", 0) % rank == rank - 1
    equal = len(pieces.meta["val"]) == parts and shape(node)[-1] * parts == shape(whole)[-1]
    return (whole, node.args[1]) if along_last and equal else None
