"""The parts of a fusion pass: rules that rewrite one node, match counts, and metadata kept up to date."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

# Registers torch.ops.lightdiffusion, which the passes use.
import modules.stable_fast.kernels  # noqa: F401  # pyright: ignore[reportUnusedImport]
from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.graph.sizes import Sizes
from modules.stable_fast.graph.staging import needs_of, stage_of
from modules.stable_fast.graph.verify import MetaCalls

aten = torch.ops.aten

Rewrite = Callable[["Editor", fx.Node], bool]


@dataclass(frozen=True)
class Rule:
    """Checks every node that calls one of `anchors`, the last operation of the pattern.

    `rewrite` returns True if it changed the graph.
    """

    name: str
    anchors: tuple[Any, ...]
    rewrite: Rewrite


@dataclass(frozen=True)
class FusionPass:
    """Rules that belong together. They run until none of them matches.

    A pass that `adds_weights` keeps prepared weights in memory, in addition to the network's weights. One that
    `lowers_precision` is there because the user asked for it, who is told if it matches nothing.
    """

    name: str
    rules: tuple[Rule, ...]
    adds_weights: bool = False
    lowers_precision: bool = False


class Editor:
    """Edits a labelled graph. New nodes get metadata and needs. Replaced nodes are erased along with unused inputs."""

    def __init__(self, graph: fx.Graph, sizes: Sizes) -> None:
        self.graph = graph
        self.sizes = sizes
        self._on_meta = MetaCalls()

    def call(self, before: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Adds a new call before `before`. All its arguments must come earlier in the graph."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, args, kwargs)
        node.meta["val"] = self._on_meta(node, lambda source: source.meta["val"])
        node.meta["needs"] = needs_of(node, self.sizes)
        return node

    def call_changed(self, before: fx.Node, node: fx.Node, **changes: Any) -> fx.Node:
        """Adds the call of `node` with some arguments changed, placed before `before`."""
        target: Any = node.target
        return self.call(before, target, *(vars(arguments(node)) | changes).values())

    def hoist(self, node: fx.Node, before: fx.Node) -> None:
        """Moves a call, and the arguments it needs, to an earlier place in the graph."""
        if node.op == "call_function" and before < node:
            for source in node.all_input_nodes:
                self.hoist(source, before)
            before.prepend(node)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Makes all users of `old` use `new` instead."""
        old.replace_all_uses_with(new)
        self.erase_unused(old)

    def erase_unused(self, node: fx.Node) -> None:
        """Erases a node that has no users, and then its arguments if they have no users left."""
        pending = [node]
        while pending:
            candidate = pending.pop()
            if not candidate.users and candidate.op == "call_function":
                sources = list(dict.fromkeys(candidate.all_input_nodes))
                self.graph.erase_node(candidate)
                pending += [source for source in sources if not source.users]


def is_call(node: object, *targets: Any) -> TypeGuard[fx.Node]:
    """Whether this is a node that calls one of the targets."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def is_tensor(node: object) -> TypeGuard[fx.Node]:
    """Whether this is a node with a single tensor as its value."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor)


def only_user(node: fx.Node) -> fx.Node | None:
    """The only node that uses this value, if it uses it once; else None."""
    users = list(node.users)
    if len(users) != 1 or users[0].op == "output":
        return None
    return users[0] if list(users[0].all_input_nodes).count(node) == 1 else None


def operands(node: fx.Node) -> tuple[Any, Any]:
    """Both operands of an addition or a product."""
    first, second = node.args[:2]
    return first, second


def either_way(node: fx.Node) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Both operands of an addition or a product, in both orders, starting with the given order."""
    first, second = operands(node)
    return (first, second), (second, first)


def shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value."""
    return tuple(node.meta["val"].shape)


def broadcasts(small: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a value of the first shape can be expanded to the second."""
    pairs = zip(reversed(small), reversed(whole), strict=False)
    return len(small) <= len(whole) and all(size in (1, full) for size, full in pairs)


def dtype_of(node: fx.Node) -> torch.dtype:
    """The dtype of a node's value."""
    return node.meta["val"].dtype


def count_calls(graph: fx.Graph) -> int:
    """The number of operations in the graph."""
    return sum(node.op == "call_function" for node in graph.nodes)


def same_stage(first: fx.Node, second: fx.Node) -> bool:
    """Whether fusing both nodes would delay neither. An early result must not be moved into every step."""
    return stage_of(first.meta["needs"]) == stage_of(second.meta["needs"])


def gelu_name(gelu: fx.Node) -> str:
    """The activation that a call of aten.gelu computes, as the kernels name it."""
    return "gelu" if arguments(gelu).approximate == "none" else "gelu_tanh"


def part_of(node: object, parts: int) -> tuple[fx.Node, int] | None:
    """(x, i) if the node is the i-th of `parts` equal pieces of x along its last dimension."""
    if not is_call(node, operator.getitem):
        return None
    pieces, index = operands(node)
    if not is_call(pieces, aten.chunk.default, aten.split.Tensor):
        return None
    whole = source_of(pieces)
    rank = len(shape(whole))
    along_last = arguments(pieces).dim % rank == rank - 1
    equal = len(pieces.meta["val"]) == parts and shape(node)[-1] * parts == shape(whole)[-1]
    return (whole, index) if along_last and equal else None


def apply_pass(fusion: FusionPass, editor: Editor) -> Counter[str]:
    """Applies the pass until no rule matches. Returns the number of matches of each rule."""
    matches: Counter[str] = Counter()
    by_anchor: dict[Any, list[Rule]] = {}
    for rule in fusion.rules:
        for anchor in rule.anchors:
            by_anchor.setdefault(anchor, []).append(rule)
    while _apply_once(by_anchor, editor, matches):
        pass
    return matches


def _apply_once(by_anchor: dict[Any, list[Rule]], editor: Editor, matches: Counter[str]) -> bool:
    before = matches.total()
    for node in list(editor.graph.nodes):
        if node.op != "call_function" or not node.users:
            continue  # erased or soon to be
        for rule in by_anchor.get(node.target, ()):
            if rule.rewrite(editor, node):
                matches[rule.name] += 1
                break
    return matches.total() > before
