"""Any other object in a module is noticed, wherever it is; nothing is compared by value or run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn

from modules.stable_fast.changes.parts import Parts


@dataclass
class Config:
    width: int = 4
    names: list[str] = field(default_factory=lambda: ["a"])


@dataclass
class Slotted:
    __slots__ = ("width",)
    width: int


class Processor:
    def __init__(self) -> None:
        self.scale, self.kept = 1.0, {"a": [1]}

    def __call__(self) -> None: ...


class Touchy:
    """An object that may not be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared")

    __hash__ = object.__hash__


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.number, self.nothing, self.touchy = 300, None, Touchy()
        self.table = torch.ones(3)
        self.config, self.slotted, self.processor = Config(), Slotted(1), Processor()
        self.sizes, self.nested = [1, 2], ({"deep": [{"deeper": [1]}]},)
        self.view: Mapping[str, int] = MappingProxyType({"a": 1})
        self.bound = self.processor.__call__
        self.itself = [self.sizes]
        self.itself.append(self.itself)  # type: ignore[arg-type] # a list may hold itself

    def forward(self) -> None: ...


def rename(module: Any) -> None:
    module.other = vars(module.layer).pop("out_features")
    module.layer.others = vars(module).pop("other")


def replace_hooks(module: Any) -> None:
    module.layer._forward_hooks = OrderedDict()


def move_layer(module: Any) -> None:
    module.norm.layer = module.layer
    del module.layer


def another_method(module: Any) -> None:
    module.layer.forward = lambda x: x


def another_class(module: Any) -> None:
    module.layer.__class__ = nn.modules.linear.NonDynamicallyQuantizableLinear


def swap_attributes(module: Any) -> None:
    module.layer.__dict__ = {**vars(module.layer), "in_features": 7}


CHANGES: list[Callable[[Any], object]] = [
    rename,
    replace_hooks,
    move_layer,
    another_method,
    another_class,
    swap_attributes,
    lambda module: setattr(module, "number", float(module.number)),
    lambda module: setattr(module, "nothing", 1),
    lambda module: setattr(module, "added", None),
    lambda module: delattr(module, "nothing"),
    lambda module: setattr(module, "table", module.table.clone()),
    lambda module: setattr(module, "config", Config()),
    lambda module: setattr(module.config, "width", 5),
    lambda module: module.config.names.append("b"),
    lambda module: setattr(module.slotted, "width", 5),
    lambda module: setattr(module.processor, "scale", 2.0),
    lambda module: module.processor.kept["a"].append(2),
    lambda module: module.sizes.__setitem__(0, 5),
    lambda module: module.sizes.reverse(),
    lambda module: module.nested[0]["deep"][0]["deeper"].append(1),
    lambda module: module.nested[0].update(more=1),
    lambda module: setattr(module, "view", MappingProxyType({"a": 1, "b": 2})),
    lambda module: setattr(module.layer, "bias", None),
    lambda module: setattr(module.layer, "weight", nn.Parameter(module.layer.weight.detach())),
    lambda module: setattr(module.norm, "running_mean", torch.zeros(4)),
    lambda module: module.layer.register_forward_hook(lambda *_: None),
    lambda module: module.norm.register_forward_pre_hook(lambda *_: None),
    lambda module: module.layer.register_buffer("more", torch.ones(1)),
    lambda module: module.norm.add_module("child", nn.Identity()),
    lambda module: setattr(module, "layer", nn.Linear(4, 4)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_object_is_noticed(change: Callable[[Any], object]) -> None:
    module = nn.Sequential(Block(), nn.Identity())
    parts = Parts(module)
    assert parts.hold()
    change(module[0])
    assert not parts.hold()
    assert Parts(module).hold()


@pytest.fixture
def patched_class() -> Iterator[None]:
    own = Block.forward
    yield
    Block.forward = own


@pytest.mark.usefixtures("patched_class")
def test_another_forward_of_a_class_is_noticed() -> None:
    parts = Parts(Block())
    Block.forward = lambda self: None  # type: ignore[method-assign]
    assert not parts.hold()


def test_what_does_not_affect_results_is_left_alone() -> None:
    module = Block()
    parts = Parts(module)
    module.layer.weight.data.add_(1)
    module.layer.register_full_backward_hook(lambda *_: None)
    module.layer.requires_grad_(False)
    assert parts.hold()
