"""Other contents of weights are named, by every name of a weight; other places are told before anything is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modules.stable_fast.changes.contents import Contents

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_other_element_is_noticed(dtype: torch.dtype) -> None:
    x = torch.zeros(65, 33, dtype=dtype)
    contents = Contents({"x": x, "same": x, "part": x[:, :3], "y": torch.zeros((), dtype=dtype), "none": torch.ones(0)})
    x.data[64, 32] = 1
    contents.start()
    assert contents.finish() == {"x", "same"} and contents.by_version() == set()
    x.data[64, 1] = 1
    contents.start()
    assert contents.finish() == {"x", "same", "part"}
    contents.start()
    assert contents.finish() == set() and not contents.moved()


def test_versions_tell_without_a_look_at_the_elements() -> None:
    x, frozen = torch.zeros(4), torch.inference_mode()(torch.ones)(4)
    contents = Contents({"x": x, "frozen": frozen})
    x.add_(0)
    assert contents.by_version() == {"x"} and contents.by_version() == set()


@pytest.mark.parametrize(
    "other", [Tensor.clone, Tensor.t, lambda x: x[:2], lambda x: x[1:], lambda x: x.view(2, 2, 4), Tensor.half]
)
def test_another_place_or_form_is_noticed(other: Callable[[Tensor], Tensor]) -> None:
    x = torch.zeros(4, 4)
    contents = Contents({"x": x})
    assert not contents.moved()
    x.data = other(x.data)
    assert contents.moved()


def test_a_network_without_weights_has_no_other_contents() -> None:
    contents = Contents({})
    contents.start()
    assert contents.finish() == set() and not contents.moved()
