"""A prompt's graph is captured once, replays with new values, and never takes the place of another graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from modules.core.runner import Conditioning
from modules.generation.eager_runner import EagerRunner
from modules.stable_fast import StableFastConfig, StableFastRunner, engine
from modules.stable_fast.runtime.capture_table import Graphs
from tests import tiny
from tests.stable_fast.networks import Pair, inputs_for, latent
from tests.stable_fast.test_unet_runner_captured import TOLERANCE, AddressPool

CPU = torch.device("cpu")


class Doubled:
    """Stores twice its input, and counts how often it runs instead of being replayed."""

    def __init__(self) -> None:
        self.result, self.runs = torch.zeros(1), 0

    def __call__(self, x: Tensor) -> None:
        self.runs += 1
        self.result.copy_(x * 2)

    def by(self, graphs: Graphs, value: float, key: str = "a") -> float:
        graphs.run_prompt(key, self, [torch.tensor([value])])
        return self.result.item()


def graphs_on(pool: Any, megabytes: int = 10) -> Graphs:
    return Graphs(lambda device: pool, max_graphs=2, max_bytes=megabytes << 20)


def test_a_prompt_is_captured_once_and_again_after_its_memory_was_taken() -> None:
    pool, doubled = AddressPool(CPU), Doubled()
    graphs = graphs_on(pool)
    assert [doubled.by(graphs, value) for value in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0] and doubled.runs == 1
    assert graphs.bytes == 1 << 20 and "a" not in graphs, "that is about steps"
    pool.start_over()
    assert graphs.bytes == 0 and doubled.by(graphs, 4.0) == 8.0 and doubled.runs == 2
    graphs.drop("a")
    assert pool.is_empty and doubled.by(graphs, 5.0) == 10.0
    graphs.release()
    assert pool.is_empty


@pytest.mark.parametrize("refuses", [lambda inputs: "not permitted", None])
def test_without_room_or_against_its_nature_a_prompt_runs_without_a_graph(
    refuses: Callable[[Any], str] | None,
) -> None:
    pool, doubled = AddressPool(CPU, refuses) if refuses else AddressPool(CPU), Doubled()
    graphs = graphs_on(pool, megabytes=1)
    if refuses is None:
        graphs.steps(CPU).run("steps", lambda x: x + 1, [torch.ones(1)])
    assert [doubled.by(graphs, value) for value in (1.0, 2.0)] == [2.0, 4.0] and doubled.runs >= 2
    assert ("steps" in graphs) == (refuses is None), "the other graph stays"


def test_prompts_are_replayed_and_follow_weights_and_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "GraphPool", AddressPool)
    network = tiny.unet(tiny.SMALL_UNET)
    pair = Pair(StableFastRunner(network, StableFastConfig(level="full")), EagerRunner(network))
    runs: list[Conditioning] = [inputs_for(seed=seed) for seed in (1, 2, 3)]
    for inputs in runs:
        assert pair.step(inputs, latent()) < TOLERANCE
    graphs = pair.compiled._engine._graphs
    assert len(graphs._prompts) == 1 and pair.compiled.report.counters.captures == 1
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.02)
    pair.compiled.refresh_weights({name for name, _ in network.named_parameters()})
    for inputs in runs:
        assert pair.step(inputs, latent()) < TOLERANCE
    pair.compiled.release()
    assert not graphs._prompts and pair.step(runs[0], latent()) < TOLERANCE
