"""Which operations run beside the main line: small products whose result is needed only later.

In a UNet these are the 1x1 convolutions of shortcuts, beside a GroupNorm and a convolution; in a ControlNet those of
its results, beside the next block. Such a product leaves parts of the GPU idle, and so do its neighbours at low
resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from modules.stable_fast.branches.streams import beside, joined
from modules.stable_fast.graph.layout import as_image, as_tokens

ops = torch.ops.lightdiffusion

PRODUCTS = (ops.linear_epilogue.default, ops.conv2d_cat_epilogue.default)
VIEWS = (as_tokens, as_image)


@dataclass(frozen=True)
class Branch:
    """A product with the views before and after it, which begins after `ready` and is needed by `user`."""

    product: fx.Node
    inputs: tuple[fx.Node, ...]  # without views of them
    before: tuple[fx.Node, ...]
    after: tuple[fx.Node, ...]
    ready: fx.Node
    user: fx.Node


def with_branches(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph with its branches, or the module itself if it has none."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    branches = find_branches(graph)
    _lay(graph, branches)
    return fx.GraphModule(nn.Module(), graph, "with_branches") if branches else module


def find_branches(graph: fx.Graph) -> list[Branch]:
    """The branches of a graph, in the order in which they begin, at most one at each place."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    found: dict[fx.Node, Branch] = {}
    products: set[fx.Node] = set()
    for node in graph.nodes:
        branch = _branch(node, position) if node.target in PRODUCTS and not node.kwargs else None
        if branch is None or branch.ready in found or not products.isdisjoint(branch.inputs):
            continue
        passed = (other for other in graph.nodes if position[branch.ready] < position[other] < position[branch.user])
        if any(other.op == "call_function" and other is not node and other.target not in VIEWS for other in passed):
            found[branch.ready] = branch
            products.add(node)
    return [found[ready] for ready in sorted(found, key=position.__getitem__)]


def _branch(product: fx.Node, position: dict[fx.Node, int]) -> Branch | None:
    before: list[fx.Node] = []
    inputs: list[fx.Node] = []
    for source in product.all_input_nodes:
        views: list[fx.Node] = []
        while source.target in VIEWS:
            views.insert(0, source)
            source = source.all_input_nodes[0]
        before += views
        inputs.append(source)
    after: list[fx.Node] = []
    user, *others = product.users
    while not others and user.target in VIEWS:
        after.append(user)
        user, *others = user.users
    computed = [source for source in inputs if source.op == "call_function"]
    if others or not computed:  # a product of what is there from the start would hold its result for long
        return None
    return Branch(product, tuple(inputs), tuple(before), tuple(after), max(computed, key=position.__getitem__), user)


def _lay(graph: fx.Graph, branches: Sequence[Branch]) -> None:
    """Lets each branch begin as early as it can. It ends before its result is used and before the next one begins."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    starts = {branch.ready: branch.ready for branch in branches}
    for number, branch in enumerate(branches):
        last = starts[branch.ready]
        for view in branch.before:
            if position[view] > position[branch.ready]:
                last.append(view)
                last = view
        with graph.inserting_after(last):
            operation: Any = branch.product.target
            result = graph.call_function(beside, (operation, *branch.product.args))
        for view in branch.after:
            branch.user.prepend(view)
        following = branches[number + 1].ready if number + 1 < len(branches) else branch.user
        if position[branch.user] <= position[following]:
            place = graph.inserting_before(branch.after[0] if branch.after else branch.user)
        else:
            place = graph.inserting_after(following)
        with place:
            end = graph.call_function(joined, (result, *branch.inputs))
        if end.prev is following:
            starts[following] = end
        branch.product.replace_all_uses_with(end)
        graph.erase_node(branch.product)
