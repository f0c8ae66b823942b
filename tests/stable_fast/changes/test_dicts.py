"""Every way to write to a dict is seen, and what holds the same objects again is the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from modules.stable_fast.changes.dicts import Dicts


class Touchy:
    """An object that may not be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared")

    __hash__ = object.__hash__


def reorder(each: dict[str, Any]) -> None:
    each["a"] = each.pop("a")


WRITES: dict[str, Callable[[dict[str, Any]], object]] = {
    "set": lambda each: each.__setitem__("a", Touchy()),
    "new": lambda each: each.__setitem__("c", None),
    "update": lambda each: each.update(a=Touchy()),
    "merge": lambda each: each.__ior__({"a": Touchy()}),
    "default": lambda each: each.setdefault("c", 1),
    "delete": lambda each: each.__delitem__("a"),
    "pop": lambda each: each.pop("b"),
    "pop the last": lambda each: each.popitem(),
    "clear": lambda each: each.clear(),
    "past a subclass": lambda each: dict.__setitem__(each, "a", Touchy()),
    "another order": reorder,
    "a number that is equal": lambda each: each.update(b=True),
}


@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize("write", WRITES)
def test_each_write_is_seen(write: str, kind: type[dict[str, Any]]) -> None:
    each = kind(a=Touchy(), b=1)
    dicts = Dicts([{"x": 1}, each, {}])
    assert dicts.are_same() and dicts.are_same()
    WRITES[write](each)
    assert not dicts.are_same()
    assert not dicts.are_same()  # until someone looks at what it holds now
    assert Dicts([each]).are_same()


def test_an_order_without_a_version_is_seen() -> None:
    each = OrderedDict(a=1, b=2)
    dicts = Dicts([each])
    each.move_to_end("a")
    assert not dicts.are_same()


def test_the_first_write_to_an_empty_dict_is_seen() -> None:
    each: dict[str, int] = {}
    dicts = Dicts([each])
    each |= {"a": 1}
    assert not dicts.are_same()


def test_the_same_objects_again_are_no_change() -> None:
    kept, each = Touchy(), dict[str, Any](b=1)
    each = {"a": kept, **each}
    dicts = Dicts([each])
    each["a"] = None
    each["a"] = kept
    assert dicts.are_same()
    each["a"] = Touchy()
    assert not dicts.are_same()


def test_ignored_names_do_not_count() -> None:
    each = {"a": 1, "b": 2}
    dicts = Dicts([each], ignored=("a",))
    each["a"] = 3
    assert dicts.are_same()
    each["b"] = 3
    assert not dicts.are_same()


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.5


ATTRIBUTES: dict[str, Callable[[Part], object]] = {
    "set": lambda part: setattr(part, "scale", 2.5),
    "new": lambda part: setattr(part, "other", 2.5),
    "delete": lambda part: delattr(part, "scale"),
    "past the module": lambda part: object.__setattr__(part, "scale", 2.5),
    "through its dict": lambda part: vars(part).update(scale=2.5),
    "a layer": lambda part: part.add_module("layer", nn.Identity()),
}


@pytest.mark.parametrize("write", ATTRIBUTES)
def test_each_write_to_an_attribute_is_seen(write: str) -> None:
    """Many times at one place in the code, since Python then writes by a faster way of its own."""
    for _ in range(200):
        part = Part()
        dicts = Dicts([vars(part), part._modules])
        assert dicts.are_same()
        ATTRIBUTES[write](part)
        assert not dicts.are_same()


def test_writes_by_the_faster_way_of_python_are_seen() -> None:
    parts = [Part() for _ in range(200)]
    dicts = [Dicts([vars(part)]) for part in parts]
    for part in parts:
        part.scale = part.scale + 1
    assert not any(each.are_same() for each in dicts)
