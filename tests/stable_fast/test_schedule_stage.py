"""What needs prompt and timestep only runs once for all steps, and is never stale: SDXL's vector, and any module's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, TextInputs
from modules.models.configs import UNetConfig
from modules.stable_fast import StableFastConfig, StableFastRunner, compile_module, engine
from modules.stable_fast.graph.staging import SCHEDULE
from modules.stable_fast.runtime.program import Program, StageFunction
from tests import tiny
from tests.stable_fast.networks import latent, random, rel_error
from tests.stable_fast.test_unet_runner_captured import AddressPool

CONFIG = UNetConfig(
    channels=(32, 64),
    depths=(0, 1),
    middle_depth=None,
    res_blocks=1,
    context_dim=32,
    vector_dim=24,
    heads=1,
    groups=8,
    linear_projection=True,
)
TIMESTEPS = (900.0, 700.0, 500.0, 20.5)
TOLERANCE = 1e-5


@pytest.fixture(params=["fused", "full"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Level "full" with the stand-in for CUDA graphs, which replays on recorded addresses."""
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "GraphPool", AddressPool)
    return request.param


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows in each evaluation of the schedule stage."""
    rows: list[int] = []
    original = Program.function

    def function(program: Program, stage: str, actual: dict[str, int]) -> StageFunction:
        found = original(program, stage, actual)
        if stage != SCHEDULE:
            return found

        def counted(values: dict[str, Tensor]) -> dict[str, Tensor]:
            rows.append(actual["batch"])
            return found(values)

        counted.inputs, counted.outputs = found.inputs, found.outputs  # type: ignore[attr-defined]
        return counted  # type: ignore[return-value]

    monkeypatch.setattr(Program, "function", function)
    return rows


def texts(count: int, rows: int, seed: int = 1) -> tuple[TextInputs, ...]:
    return tuple(
        TextInputs(random(rows, 7, CONFIG.context_dim, seed=seed + turn), random(rows, 24, seed=seed + 50 + turn))
        for turn in range(count)
    )


def made(network: nn.Module, level: str) -> StableFastRunner:
    return StableFastRunner(network, StableFastConfig(level=level))


def expected(network: nn.Module, text: TextInputs, x: Tensor, timestep: float) -> Tensor:
    rows = len(text.context)
    x = x.repeat(rows // len(x), 1, 1, 1)
    return network(x, torch.full((rows,), timestep), text.context, vector=text.vector)


@torch.inference_mode()
def test_each_text_is_scheduled_once_for_all_steps_and_rows(level: str, evaluations: list[int]) -> None:
    network, x = tiny.unet(CONFIG), latent(2, 8, 8)
    runner = made(network, level)
    for seed in (1, 11):  # the second batch of pictures reuses what was compiled and captured
        given = texts(3, rows=6, seed=seed)
        runner.prepare(Conditioning(texts=given), TIMESTEPS)
        evaluations.clear()
        for which, timestep in zip((0, 2, 1, 0), TIMESTEPS, strict=True):
            runner.switch(which)
            assert rel_error(runner.step(x, timestep), expected(network, given[which], x, timestep)) < TOLERANCE
        assert evaluations == 3 * [6 * len(TIMESTEPS)]
    assert runner.report.counters.captures == (1 if level == "full" else 0)


@torch.inference_mode()
def test_another_vector_with_the_same_context_is_scheduled_anew(level: str) -> None:
    network, x = tiny.unet(CONFIG), latent(1, 8, 8)
    runner, first, other = made(network, level), *texts(2, rows=2)
    results: list[Tensor] = []
    for vector in (first.vector, other.vector, first.vector):
        text = TextInputs(first.context, vector)
        runner.prepare(Conditioning(texts=(text,)), TIMESTEPS)
        results.append(runner.step(x, 500.0))
        assert rel_error(results[-1], expected(network, text, x, 500.0)) < TOLERANCE
    assert rel_error(results[0], results[1]) > 1e-2 and torch.equal(results[0], results[2])


@torch.inference_mode()
def test_a_timestep_that_was_not_announced_is_scheduled_alone(level: str, evaluations: list[int]) -> None:
    network, x, (text,) = tiny.unet(CONFIG), latent(1, 8, 8), texts(1, rows=2)
    runner = made(network, level)
    runner.prepare(Conditioning(texts=(text,)), TIMESTEPS)
    for timestep in (900.0, 123.25, 500.0, 123.25):
        assert rel_error(runner.step(x, timestep), expected(network, text, x, timestep)) < TOLERANCE
    assert evaluations == [2 * len(TIMESTEPS), 2]


@pytest.mark.parametrize("changed", ["label_emb", "time_embed", "emb_layers"])
def test_changed_weights_reach_the_schedule_of_every_text(level: str, changed: str) -> None:
    network, x, given = tiny.unet(CONFIG), latent(1, 8, 8), texts(2, rows=2)
    runner = made(network, level)
    with torch.inference_mode():
        runner.prepare(Conditioning(texts=given), TIMESTEPS)
        for which in (0, 1):
            runner.switch(which)
            before = runner.step(x, 900.0)
    names = {name for name, _ in network.named_parameters() if changed in name}
    with torch.no_grad():
        for name in names:
            network.get_parameter(name).mul_(1.5)
    runner.refresh_weights(names)
    with torch.inference_mode():
        for which in (1, 0):
            runner.switch(which)
            found = runner.step(x, 900.0)
            assert rel_error(found, expected(network, given[which], x, 900.0)) < TOLERANCE
    assert names and rel_error(found, before) > 1e-2


@torch.inference_mode()
def test_sizes_share_one_program_but_no_schedule(level: str) -> None:
    network = tiny.unet(CONFIG)
    runner = made(network, level)
    for images, halves, width in ((1, 2, 8), (2, 2, 16), (1, 1, 8), (1, 2, 8)):
        (text,), x = texts(1, rows=images * halves, seed=width + images), latent(images, 8, width)
        runner.prepare(Conditioning(texts=(text,)), TIMESTEPS)
        for timestep in TIMESTEPS[:2]:
            assert rel_error(runner.step(x, timestep), expected(network, text, x, timestep)) < TOLERANCE
    assert runner.report.counters.traces == 1


class Labelled(nn.Module):
    """A vector meets the timestep, as in SDXL's UNet and ControlNets."""

    def __init__(self) -> None:
        super().__init__()
        self.label, self.out = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, timesteps: Tensor, vector: Tensor) -> Tensor:
        return x * self.out(torch.cos(timesteps)[:, None] + self.label(vector))


@torch.no_grad()
def test_a_compiled_module_has_the_stage_too(level: str) -> None:
    network = Labelled().eval()
    compiled = compile_module(
        network,
        {"x": random(2, 4), "timesteps": torch.zeros(2), "vector": random(2, 3)},
        {"x": "step", "timesteps": "time", "vector": "prompt"},
        {"x": ("batch", None), "timesteps": ("batch",), "vector": ("batch", None)},
        level=level,
    )
    assert compiled.report.programs[0].stage_nodes[SCHEDULE] == 2
    for rows in (2, 3, 2):
        x, times = random(rows, 4), torch.arange(float(rows))
        for seed in (5, 6):
            vector = random(rows, 3, seed=seed)
            compiled.prepare(vector=vector)
            for turn in range(2):
                found = compiled(x, timesteps=times + turn)
                assert rel_error(found, network(x, times + turn, vector)) < TOLERANCE
