"""Tells in microseconds whether a module still has the same layers and the same weights in the same memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn


class Snapshot:
    """The layers of a module, and where some of its weights were.

    It keeps the dicts of the layers themselves, so that nothing is looked up by its path.
    """

    def __init__(self, owners: Mapping[str, nn.Module], weights: Iterable[str]) -> None:
        """`owners`: all modules by path. `weights`: the paths of parameters and buffers, each of which exists."""
        children = {id(own): own for own in (vars(part)["_modules"] for part in owners.values()) if own}
        self._children = [(own, tuple(own.items())) for own in children.values()]
        self._weights: list[tuple[Mapping[str, Tensor | None], str, Tensor, int]] = []
        for path in weights:
            owner, _, leaf = path.rpartition(".")
            for kind in ("_parameters", "_buffers"):
                own = vars(owners[owner])[kind]
                if own.get(leaf) is not None:
                    self._weights.append((own, leaf, own[leaf], own[leaf].data_ptr()))
                    break

    @property
    def count(self) -> int:
        """The number of weights."""
        return len(self._weights)

    def holds(self) -> bool:
        """Whether no layer and none of the weights was replaced, added, removed or moved."""
        return all(tuple(own.items()) == kept for own, kept in self._children) and all(
            own.get(leaf) is tensor and tensor.data_ptr() == address for own, leaf, tensor, address in self._weights
        )
