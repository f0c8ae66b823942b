"""The eager runner: the network's rows, context and extra channels, and switching between contexts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner


class Listener(nn.Module):
    """A network that records its inputs and returns their first four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Tensor, Tensor, Tensor, Any, Tensor | None]] = []

    def forward(self, x: Tensor, times: Tensor, context: Tensor, control: Any, vector: Tensor | None) -> Tensor:
        self.heard.append((x, times, context, control, vector))
        return x[:, :4]


X = torch.arange(2 * 4 * 3 * 3, dtype=torch.float32).reshape(2, 4, 3, 3)
CONTEXT, OTHER = torch.zeros(4, 5, 6, dtype=torch.float16), torch.ones(4, 5, 6, dtype=torch.float16)
VECTORS = (torch.zeros(4, 3), torch.ones(4, 3))


def test_pictures_are_repeated_for_each_row_of_the_context() -> None:
    network = Listener()
    runner = EagerRunner(network)
    runner.prepare(Conditioning(texts=(TextInputs(CONTEXT),)), [])
    out = runner.step(X, 7.0)
    [(x, times, context, control, vector)] = network.heard
    assert torch.equal(out, torch.cat([X, X]).half()) and x.dtype == torch.float16
    assert times.tolist() == [7.0] * 4 and context is CONTEXT and control is None and vector is None


def test_switching_changes_the_context_until_the_next_prepare() -> None:
    network = Listener()
    runner = EagerRunner(network)
    for _ in range(2):
        runner.prepare(Conditioning(texts=(TextInputs(CONTEXT), TextInputs(OTHER))), [])
        runner.step(X, 1.0)
        runner.switch(1)
        runner.step(X, 0.5)
    assert [heard[2] is OTHER for heard in network.heard] == [False, True] * 2


def test_each_text_comes_with_its_vector() -> None:
    network = Listener()
    runner = EagerRunner(network)
    runner.prepare(Conditioning(texts=tuple(map(TextInputs, (CONTEXT, OTHER), VECTORS))), [])
    for which in (0, 1):
        runner.switch(which)
        runner.step(X, 1.0)
    assert [heard[4] for heard in network.heard] == list(VECTORS)


def test_a_control_sees_the_rows_and_its_residuals_reach_the_network() -> None:
    network, residuals = Listener(), (torch.ones(1),)

    def control(x: Tensor, timestep: float, text: TextInputs) -> tuple[Tensor, ...]:
        assert (x.shape[0], timestep, text.context.shape[0]) == (4, 3.0, 4)
        return residuals

    runner = EagerRunner(network)
    runner.prepare(Conditioning(texts=(TextInputs(CONTEXT),), control=control), [])
    runner.step(X, 3.0)
    assert network.heard[0][3] is residuals


def test_extra_channels_come_behind_the_pictures_own() -> None:
    concat = torch.full((1, 5, 3, 3), 9.0)
    joined = Conditioning(texts=(TextInputs(CONTEXT),), concat=concat).with_concat(X)
    assert torch.equal(joined[:, :4], X) and joined.shape == (2, 9, 3, 3) and bool((joined[:, 4:] == 9).all())
    assert Conditioning(texts=(TextInputs(CONTEXT),)).with_concat(X) is X


def test_a_step_before_prepare_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        EagerRunner(Listener()).step(X, 1.0)
