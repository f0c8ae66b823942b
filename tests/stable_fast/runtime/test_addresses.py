"""A check of a network's weights takes no walk over its layers, and misses no change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modules.stable_fast.runtime.weights import StaleWeightsError, WeightStore


class Walked(nn.Sequential):
    """Counts how often its layers are gone through."""

    walks = 0

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        self.walks += 1
        return super().named_modules(*args, **kwargs)


def network() -> Walked:
    return Walked(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 4))


def watched(module: nn.Module) -> WeightStore:
    store = WeightStore(module)
    store.watch_all()
    assert not store.check_addresses()
    return store


def rebind(part: Any) -> None:
    part.weight = nn.Parameter(part.weight.detach().clone())


def move(part: Any) -> None:
    part.weight.data = part.weight.data.clone()


def replace_buffer(module: Any) -> None:
    module[0][1].running_mean = torch.zeros(4)


def replace_layer(module: Any) -> None:
    module[0][0] = nn.Linear(4, 4)


def replace_block(module: Any) -> None:
    module[0] = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


def remove_layer(module: Any) -> None:
    del module[1]


CHANGES: list[Callable[[Any], None]] = [
    lambda module: rebind(module[0][0]),
    lambda module: move(module[1]),
    replace_buffer,
    replace_layer,
    replace_block,
    remove_layer,
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_memory_is_noticed(change: Callable[[Any], None]) -> None:
    module = network()
    store = watched(module)
    change(module)
    for _ in range(2):
        with pytest.raises(StaleWeightsError):
            store.check_addresses()


def test_nothing_is_walked_while_nothing_changes() -> None:
    module = network()
    store = watched(module)
    before = module.walks
    module[1].weight.data.add_(1)  # in place, as a LoRA does it
    assert not store.check_addresses() and module.walks == before


def test_a_weight_watched_later_and_a_layer_that_is_added_are_looked_at() -> None:
    module = network()
    store = WeightStore(module)
    store.parameter("1.weight")
    store.check_addresses()
    store.parameter("0.0.weight")
    rebind(module[0][0])
    with pytest.raises(StaleWeightsError, match=r"0\.0\.weight"):
        store.check_addresses()
    module = network()
    store = watched(module)
    added: Any = nn.Linear(4, 4)
    added.merged_adapters = ["one"]
    module[0].append(added)
    assert store.check_addresses()  # adapters have come
    added.merged_adapters = []
    assert store.check_addresses() and not store.check_addresses()
