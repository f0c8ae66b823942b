"""Rows are known to repeat only where that is certain, and a network computes with them once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_pipeline
from modules.stable_fast.pipelines.repeated_rows import inside_a_network, noticing_repeated_rows, times_repeated
from modules.stable_fast.runtime.execution import Execution
from tests.stable_fast.networks import random, rel_error

SCALE = torch.tensor(2.0)
CERTAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "joined": lambda x: torch.cat([x] * 2),
    "three times": lambda x: torch.cat((x, x, x), dim=0),
    "scaled": lambda x: torch.cat([x] * 2) / SCALE * 3,
    "converted": lambda x: torch.cat([x] * 2).to(torch.float16),
    "with channels": lambda x: torch.cat([torch.cat([x] * 2), torch.cat([x + 1] * 2)], dim=1),
}
UNCERTAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "by itself": lambda x: x,
    "two tensors": lambda x: torch.cat([x, x.clone()]),
    "scaled by row": lambda x: torch.cat([x] * 2) * random(2, 1, seed=3),
    "with other channels": lambda x: torch.cat([torch.cat([x] * 2), random(2, 3)], dim=1),
    "channels twice": lambda x: torch.cat([x] * 2, dim=1),
    "in another order": lambda x: torch.cat([x] * 2).flip(0),
    "written to": lambda x: torch.cat([x] * 2).add_(random(2, 3)),
    "written to in part": lambda x: _written(torch.cat([x] * 2)),
}


def _written(x: Tensor) -> Tensor:
    x[0, 0] = 5
    return x


@pytest.mark.parametrize("name", CERTAIN)
def test_what_repeats_for_certain(name: str) -> None:
    with noticing_repeated_rows():
        made = CERTAIN[name](random(1, 3))
        times = times_repeated(made)
    assert times == len(made) > 1 and torch.equal(made[:1], made[1:2])
    assert times_repeated(made) == 1  # afterwards, nobody knows


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_may_differ(name: str) -> None:
    with noticing_repeated_rows():
        assert times_repeated(UNCERTAIN[name](random(1, 3))) == 1


def test_a_later_write_is_seen_and_networks_are_not_watched() -> None:
    with noticing_repeated_rows():
        made = torch.cat([random(1, 3)] * 2)
        with inside_a_network():
            assert times_repeated(torch.cat([made] * 2)) == 1 and times_repeated(made) == 2
        with torch.device("cpu"), inside_a_network():  # a mode that began later hides this one
            assert times_repeated(made) == 2
        made[1].mul_(2)
        assert times_repeated(made) == 1


def through_data(made: Tensor) -> object:
    return made.data[1].mul_(2)


def through_the_data_of_a_view(made: Tensor) -> object:
    return made[1].data.mul_(2)


def by_other_data(made: Tensor) -> None:
    made.data = random(*made.shape, seed=5)


def through_numpy(made: Tensor) -> object:
    return made.numpy()[1].fill(3)


@pytest.mark.parametrize("write", [through_data, through_the_data_of_a_view, by_other_data, through_numpy])
def test_a_write_past_the_version_is_seen(write: Callable[[Tensor], object]) -> None:
    with noticing_repeated_rows():
        made = torch.cat([random(2, 4)] * 2)
        other = torch.cat([random(2, 4)] * 2)
        assert times_repeated(made) == 2
        write(made)
        assert times_repeated(made) == 1 and times_repeated(other) == 2


class UNet2DConditionModel(nn.Module):
    """Known by this name. What needs the sample alone comes before the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        hidden = torch.relu(self.inside(sample)) + timestep[None].expand(sample.shape[0])[:, None]
        return self.outside(hidden) + encoder_hidden_states


class Pipe:
    def __init__(self, unet: nn.Module) -> None:
        self.components = {"unet": unet}

    def __call__(self, make: Callable[[Tensor], Tensor], x: Tensor, text: Tensor) -> Tensor:
        made = make(x)
        return self.components["unet"](made, torch.tensor(3.0), text[: len(made)])


@torch.no_grad()
def test_a_network_computes_once_with_rows_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = Execution.__init__

    def init(self: Execution, program: Any, actual: Any, halves: int = 1) -> None:
        made.append(halves)
        original(self, program, actual, halves)

    monkeypatch.setattr(Execution, "__init__", init)
    unet = UNet2DConditionModel().eval()
    pipe, text = Pipe(unet), random(6, 4, seed=2)
    expected = {
        name: [pipe(make, random(1, 4, seed=seed), text) for seed in range(3)]
        for name, make in (("joined", CERTAIN["joined"]), ("two tensors", UNCERTAIN["two tensors"]))
    }
    apart = torch.cat([random(1, 4, seed=8), random(1, 4, seed=9)])
    own = pipe(lambda x: x, apart, text)
    fast = compile_pipeline(pipe)
    for name, pictures in expected.items():
        make = CERTAIN.get(name) or UNCERTAIN[name]
        for seed, picture in enumerate(pictures):
            assert rel_error(pipe(make, random(1, 4, seed=seed), text), picture) < 1e-5
    assert rel_error(pipe(lambda x: x, apart, text), own) < 1e-5
    assert made == [2, 1] and fast.report.parts["unet"].counters.traces == 1
