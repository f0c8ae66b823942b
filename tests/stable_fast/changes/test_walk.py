"""The modules of a network are those of now, and it is walked over only after a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from modules.stable_fast.changes.walk import Walk

CHANGES: list[Callable[[Any], object]] = [
    lambda module: module.append(nn.Identity()),
    lambda module: module[1].append(nn.Identity()),
    lambda module: module[0].add_module("child", nn.Identity()),
    lambda module: module.__setitem__(0, nn.Identity()),
    lambda module: module.__delitem__(0),
]


@pytest.mark.parametrize("change", CHANGES)
def test_parts_are_those_of_now(change: Callable[[Any], object]) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    walk = Walk(module)
    before = walk.parts()
    assert list(before) == list(module.modules()) and walk.parts() is before
    change(module)
    assert list(walk.parts()) == list(module.modules()) and walk.parts() is not before
