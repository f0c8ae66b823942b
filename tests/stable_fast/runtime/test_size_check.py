"""Named sizes that affect more than shapes: a comparison detects this, and then each size has a separate trace."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module
from modules.stable_fast.runtime.size_check import agrees

Function = Callable[[Tensor], Tensor]


class Calls(nn.Module):
    """A layer and a function of x [batch, n]."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.function(x).unsqueeze(-1)).squeeze(-1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


MORE_THAN_SHAPES: dict[str, Function] = {
    "root": lambda x: x / math.sqrt(x.shape[1]),
    "quotient": lambda x: x[:, : x.shape[1] // 2].sum(1),
    "steps": lambda x: x + torch.arange(x.shape[1]) / (x.shape[1] - 1),
    "branch": lambda x: x * 2 if x.shape[1] > 64 else x * 3,
    "branch on one": lambda x: x * 2 if x.shape[0] == 1 else x * 3,
    "a constant that is a prime": lambda x: x * 101,
    "a constant that holds a prime": lambda x: x + 1010,
}
DROPPED = {"branch on one": "batch"} | dict.fromkeys(
    ("a constant that is a prime", "a constant that holds a prime"), "batch and n"
)
SHAPES = ((4, 10), (1, 10), (4, 200), (103, 7))


@pytest.mark.parametrize("use", MORE_THAN_SHAPES)
def test_results_are_eagers_whatever_sizes_are_used_for(use: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = Calls(MORE_THAN_SHAPES[use]).eval()
    fast = compile_module(module, {"x": torch.randn(4, 10)}, dims={"x": ("batch", "n")})
    for shape in (*SHAPES, *SHAPES):
        x = torch.randn(shape)
        assert agrees(fast(x), module(x))
    told = warnings(caplog)
    assert [each.partition(" anew for each size of ")[2].partition(":")[0] for each in told] == [DROPPED.get(use, "n")]
    counters = fast.report.counters
    assert fast.report.level == "fused" and counters.fused_steps >= len(SHAPES) and counters.eager_steps <= 1


def test_sizes_that_are_shapes_need_one_trace(caplog: pytest.LogCaptureFixture) -> None:
    module = Calls(lambda x: x - x.mean(1, keepdim=True)).eval()
    fast = compile_module(module, {"x": torch.randn(4, 10)}, dims={"x": ("batch", "n")})
    for shape in SHAPES:
        x = torch.randn(shape)
        assert agrees(fast(x), module(x))
    assert fast.report.counters.traces == 1 and not warnings(caplog)


class Nameless(nn.Module):
    def forward(self, x: Tensor, /) -> Tensor:
        return x * 2


def test_inputs_without_names_are_compared_too(caplog: pytest.LogCaptureFixture) -> None:
    fast = compile_module(Nameless().eval(), (torch.randn(4, 10),), dims={"x": ("batch", "n")})
    x = torch.randn(3, 7)
    assert agrees(fast(x), x * 2) and fast.report.counters.traces == 1 and not warnings(caplog)


def test_random_numbers_prove_nothing(caplog: pytest.LogCaptureFixture) -> None:
    fast = compile_module(
        Calls(lambda x: x + torch.randn(1)).eval(), {"x": torch.randn(4, 10)}, dims={"x": ("batch", "n")}
    )
    assert fast(torch.randn(2, 6)).shape == (2, 6)
    assert fast.report.counters.traces == 1 and not warnings(caplog)


def test_what_agrees() -> None:
    x = torch.randn(3, 4)
    assert agrees((x, None), (x * (1 + 1e-5), None))
    assert not agrees(x, x * 1.01)
    assert agrees(x.half(), (x * 1.01).half()) and not agrees(x.half(), (x * 1.1).half())
    assert not agrees(x, x.half()) and not agrees(x, x[:2])
    assert agrees(x, x * math.nan) and agrees(x[:0], x[:0])
    assert not agrees(torch.tensor(1), torch.tensor(2))
