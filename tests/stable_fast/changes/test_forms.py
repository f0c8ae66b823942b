"""Tensors with another form or at another address are seen, and the mode in which one looks is no change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modules.stable_fast.changes.forms import Forms


def grow(x: Tensor) -> None:
    x.data = torch.zeros(8, 8)


CHANGES: dict[str, Callable[[Tensor], object]] = {
    "address": lambda x: setattr(x, "data", torch.zeros(4, 4)),
    "strides": lambda x: setattr(x, "data", x.data.t()),
    "shape in the same memory": lambda x: setattr(x, "data", x.data.view(2, 8)),
    "part of the same memory": lambda x: setattr(x, "data", x.data[:2]),
    "type in the same memory": lambda x: setattr(x, "data", x.data.view(torch.int32)),
    "size": lambda x: x.resize_(2, 2),
    "memory": lambda x: x.set_(torch.zeros(4, 4)),
    "more memory": grow,
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_form_or_place_is_seen(change: str) -> None:
    x, other = torch.zeros(4, 4), torch.zeros(3)
    kept = x.data  # so that its address is not given out again
    forms = Forms([other, x])
    assert forms.are_same() and kept.shape == (4, 4)
    CHANGES[change](x)
    assert not forms.are_same() and not forms.are_same()


def test_contents_and_modes_are_no_change() -> None:
    x = torch.nn.Parameter(torch.zeros(4, 4))
    forms = Forms([x])
    with torch.no_grad():
        x.add_(1)
        assert forms.are_same()
    with torch.inference_mode():
        assert forms.are_same() and forms.are_same()
    x.requires_grad_(requires_grad=False)
    assert forms.are_same()
    grow(x)
    with torch.inference_mode():
        assert not forms.are_same()


def test_no_tensors_are_the_same() -> None:
    assert Forms([]).are_same()
