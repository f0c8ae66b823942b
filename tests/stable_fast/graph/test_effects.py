"""A module that reads the contents of tensors in Python is refused at the first read, with the place named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module
from modules.stable_fast.graph.trace import TraceError
from tests.stable_fast.networks import random


class Reads(nn.Module):
    """Calls a function of the test before it computes anything."""

    def __init__(self, read: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        self.read(x)
        return x * 2


def rows_cut_by_a_mask(x: Tensor) -> Tensor:
    """As in Lumina2: the length of each row is read from the data."""
    lengths = (x > 0).sum(dim=1).tolist()
    return torch.stack([row[:length].sum() for row, length in zip(x, lengths, strict=True)])


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        rows_cut_by_a_mask,
    ],
)
def test_the_first_read_ends_the_trace(read: Callable[[Tensor], Any]) -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Any:
        calls.append(len(calls))
        return read(x)

    module = Reads(counted).eval()
    with pytest.raises(TraceError) as caught:
        compile_module(module, (random(2, 3),), dims={"x": ("batch", "length")})
    assert "reads the contents of a tensor in Python (test_data_reads.py, line" in str(caught.value)
    assert len(calls) == 1, "named sizes change nothing about it, so that one attempt is enough"


class ReadsItsOwn(nn.Module):
    """Reads a number that it makes: it is the same in each call."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor(2.0).item() + float(torch.tensor(0.5))


def test_a_number_that_a_module_makes_itself_may_be_read() -> None:
    fast = compile_module(ReadsItsOwn().eval(), (random(2, 3),), dims={"x": ("batch", None)})
    for rows in (2, 5):
        assert torch.equal(fast(random(rows, 3)), ReadsItsOwn()(random(rows, 3)))
    assert fast.report.counters.eager_steps == 0
