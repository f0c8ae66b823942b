"""Cleanup removes operations without effect and keeps the others. A check finds wrong metadata."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from modules.stable_fast.graph.verify import VerifyError, check
from modules.stable_fast.passes import cleanup
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse


class DoesNothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(x, 0.5, training=False).to(torch.float32).contiguous() * 1 / 1.0
        y = y.view(6, 4).reshape(2, 3, 4).permute(0, 2, 1).permute(0, 2, 1).transpose(0, 0)
        return torch.relu(y.unsqueeze(0).squeeze(0))


def test_what_does_nothing_disappears() -> None:
    found, _ = fuse(DoesNothing(), [random(2, 3, 4)], [cleanup.PASS], tolerance=1e-12)
    assert found == {"relu": 1}


class DoesSomething(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.double().transpose(1, 2).reshape(2, 12) * 2).to(torch.float32)


def test_what_does_something_stays() -> None:
    found, _ = fuse(DoesSomething(), [random(2, 3, 4)], [cleanup.PASS], tolerance=1e-12)
    assert found == {"to.dtype": 2, "permute": 1, "reshape": 1, "mul.Tensor": 1}


class Repeats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) + F.silu(x) * F.silu(-x)


def test_equal_calls_are_made_once() -> None:
    found, _ = fuse(Repeats(), [random(2, 3)], [cleanup.PASS])
    assert found["silu"] == 2


class JoinedAgain(nn.Module):
    """Takes text and picture apart and joins them, as Flux does between its single blocks."""

    def __init__(self, *starts: int) -> None:
        super().__init__()
        self.starts = starts

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        ends = (*self.starts[1:], y.shape[1])
        return torch.cat([y[:, start:end] for start, end in zip(self.starts, ends, strict=True)], dim=1)


def test_slices_that_are_joined_again() -> None:
    inputs = [random(2, 9, 3)]
    assert fuse(JoinedAgain(0, 4), inputs, [cleanup.PASS])[0] == {"relu": 1}
    assert fuse(JoinedAgain(0, 2, 7), inputs, [cleanup.PASS])[0] == {"relu": 1}
    assert fuse(JoinedAgain(1, 4), inputs, [cleanup.PASS])[0]["cat"] == 1


def test_wrong_metadata_is_found() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, 3, device="meta")
    y = graph.call_function(torch.ops.aten.relu.default, (x,))
    y.meta["val"] = torch.empty(3, 2, device="meta")
    graph.output((y,))
    with pytest.raises(VerifyError, match="relu"):
        check(graph)


def test_a_result_that_is_an_input_is_found() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, 3, device="meta")
    graph.output((x,))
    with pytest.raises(VerifyError, match="input"):
        check(graph)
