"""A glance sees whatever `structure_of` sees, and compares nothing by value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast.changes.fingerprint import structure_of
from modules.stable_fast.changes.glance import Glance


@dataclass
class Options:
    width: int = 3
    names: list[str] = field(default_factory=lambda: ["a"])


class Calls:
    """An object that is called, with settings of its own."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"depth": [1, 2], "options": Options()}

    def __call__(self, x: Tensor) -> Tensor:
        return x


class Holder(nn.Module):
    """Holds a bit of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        self.register_buffer("places", torch.zeros(1))
        self.config = {"nested": ({"deep": [1, {"deeper": 2}]},)}
        self.frozen = MappingProxyType({"a": 1})
        self.options, self.calls, self.array = Options(), Calls(), numpy.zeros(3)
        self.number, self.touchy = 300, Touchy()
        self.endless: list[Any] = [1]
        self.endless.append(self.endless)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Touchy:
    """An object that may not be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared")

    __hash__ = object.__hash__


class OtherHolder(Holder):
    """The same with another forward."""

    def forward(self, x: Tensor) -> Tensor:
        return -self.layer(x)


def move_layer(module: Any) -> None:
    module.layer[0].child = module.layer[1]
    del module.layer[1]


def rename(module: Any) -> None:
    vars(module.layer[1])["q"] = vars(module.layer[1]).pop("inplace")


def become(module: Any, kind: type) -> None:
    module.__class__ = kind


PARTS: dict[str, Callable[[Any], object]] = {
    "attribute": lambda module: setattr(module.layer[1], "p", 0.1),
    "new attribute": lambda module: setattr(module.layer, "extra", None),
    "nested list": lambda module: module.config["nested"][0]["deep"].append(3),
    "nested dict": lambda module: module.config["nested"][0]["deep"][1].update(deeper=3),
    "field": lambda module: setattr(module.options, "width", 4),
    "list in a field": lambda module: module.options.names.append("b"),
    "settings of what is called": lambda module: module.calls.settings["depth"].pop(),
    "options of what is called": lambda module: setattr(module.calls.settings["options"], "width", 5),
    "another object": lambda module: setattr(module, "calls", Calls()),
    "another array": lambda module: setattr(module, "array", numpy.zeros(3)),
    "layer": lambda module: module.layer.append(nn.Identity()),
    "hook": lambda module: module.layer[0].register_forward_pre_hook(lambda *_: None),
    "own forward": lambda module: setattr(module.layer, "forward", lambda x: x),
    "class": lambda module: become(module, OtherHolder),
    "number of another type": lambda module: setattr(module, "number", 300.0),
    "another object that may not be compared": lambda module: setattr(module, "touchy", Touchy()),
    "all attributes": lambda module: setattr(module.layer[1], "__dict__", {**vars(module.layer[1]), "p": 0.1}),
    "a place in another layer": move_layer,
    "name": rename,
}
PLACES: dict[str, Callable[[Any], object]] = {
    "parameter": lambda module: setattr(
        module.layer[0], "weight", nn.Parameter(module.layer[0].weight.detach().clone())
    ),
    "no parameter": lambda module: setattr(module.layer[0], "bias", None),
    "equal buffer": lambda module: setattr(module, "places", torch.zeros(1)),
    "rebound": lambda module: setattr(module.layer[0].weight, "data", torch.zeros(2, 2)),
    "strides": lambda module: setattr(module.layer[0].weight, "data", module.layer[0].weight.data.t()),
    "dtype": lambda module: module.half(),
}


@pytest.mark.parametrize("change", PARTS)
def test_other_parts_are_seen(change: str) -> None:
    module = Holder()
    glance, before = Glance(module), structure_of(module)
    assert glance.same_parts() and glance.same_places()
    PARTS[change](module)
    assert not glance.same_parts() and structure_of(module) != before


@pytest.mark.parametrize("change", PLACES)
def test_other_tensors_are_seen(change: str) -> None:
    module = Holder()
    glance = Glance(module)
    PLACES[change](module)
    assert not (glance.same_places() and glance.same_parts())


def test_other_contents_are_the_same_parts_at_the_same_places() -> None:
    module = Holder()
    glance = Glance(module)
    with torch.no_grad():
        module.layer[0].weight.add_(1)
    assert glance.same_parts() and glance.same_places()


def test_equal_objects_are_others_to_a_glance_alone() -> None:
    module = Holder()
    glance, before = Glance(module), structure_of(module)
    vars(module.layer[1])["p"] = float("0.5")
    module.config = {"nested": ({"deep": [1, {"deeper": 2}]},)}
    assert not glance.same_parts() and structure_of(module) == before
    assert Glance(module).same_parts()


def test_a_forward_that_is_patched_in_its_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    glance = Glance(Holder())
    monkeypatch.setattr(Holder, "forward", lambda self, x: x)
    assert not glance.same_parts()
