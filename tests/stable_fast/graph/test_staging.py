"""Staging alone: bit-identical to eager, each node in its earliest stage, and no shared rows without proof."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast.compiler import compile_program
from modules.stable_fast.graph.staging import PROMPT, SCHEDULE, SHARED, STEP, TIME, WEIGHTS, lent_results, stage_of
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.weights import WeightStore
from tests import tiny
from tests.stable_fast.networks import XL_UNET, compiled_unet, operations, random, run_program, unet_call


@pytest.fixture(scope="module", params=["SD1", "SD2"])
def staged(request: pytest.FixtureRequest) -> tuple[nn.Module, Program]:
    config = tiny.SD1_UNET if request.param == "SD1" else tiny.SD2_UNET
    network = tiny.unet(config)
    return network, compiled_unet(network, unet_call(config), passes=())[0]


@pytest.mark.parametrize(("batch", "height", "width", "tokens"), [(2, 16, 16, 77), (1, 8, 24, 154), (4, 24, 8, 77)])
@torch.no_grad()
def test_staging_alone_is_bit_equal(
    staged: tuple[nn.Module, Program], batch: int, height: int, width: int, tokens: int
) -> None:
    network, program = staged
    call = unet_call(network.config, batch=batch, height=height, width=width, tokens=tokens)
    assert torch.equal(run_program(program, call), network(**call))


def test_what_each_stage_holds(staged: tuple[nn.Module, Program]) -> None:
    _, program = staged
    counts = {name: operations(stage.graph) for name, stage in program.stages.items()}
    assert counts[PROMPT]["linear"] == 32  # K and V of 16 cross-attentions
    assert counts[TIME]["linear"] == 2 + 22  # the time MLP and one projection for each residual block
    assert counts[SHARED]["conv2d"] in (3, 4) and counts[SHARED]["scaled_dot_product_attention"] == 1
    assert not {"conv2d", "linear"} & counts[WEIGHTS].keys()
    total = sum(len(stage) for stage in program.stages.values())
    assert len(program.stages[STEP]) < 0.85 * total


def test_a_unets_result_is_not_copied(staged: tuple[nn.Module, Program]) -> None:
    _, program = staged
    assert not lent_results(program.stages, program.results)


def test_stage_of_needs() -> None:
    assert stage_of(frozenset()) == WEIGHTS
    assert stage_of(frozenset({"prompt"})) == PROMPT
    assert stage_of(frozenset({"time"})) == TIME
    assert stage_of(frozenset({"latent", "time"})) == SHARED
    assert stage_of(frozenset({"time", "prompt"})) == SCHEDULE
    assert stage_of(frozenset({"time", "prompt", "latent"})) == STEP
    assert stage_of(frozenset({"latent", "step"})) == STEP


@torch.no_grad()
def test_what_needs_prompt_and_time_is_scheduled_bit_for_bit() -> None:
    network = tiny.unet(XL_UNET)
    call = unet_call(XL_UNET, batch=3)
    program, _ = compiled_unet(network, call, passes=())
    counts = {name: operations(stage.graph)["linear"] for name, stage in program.stages.items()}
    assert counts[TIME] == 2 and counts[PROMPT] == 2 + 2 * 17  # two MLPs, and keys and values
    assert counts[SCHEDULE] == 17  # a projection for each residual block
    assert torch.equal(run_program(program, call), network(**call))


class MixesScheduledRows(nn.Module):
    def forward(self, x: Tensor, timesteps: Tensor, vector: Tensor) -> Tensor:
        both = timesteps[:, None] + vector
        return x + both.mean(0) + both.relu()


def test_the_schedule_stage_never_mixes_rows() -> None:
    """It sees the rows of all timesteps at once, so a mean over rows belongs to the step."""
    network = MixesScheduledRows()
    call = {"x": random(4, 3), "timesteps": torch.arange(4.0), "vector": random(4, 3, seed=1)}
    bindings = {"x": "latent", "timesteps": "time", "vector": "prompt"}
    dims = {"x": ("batch", None), "timesteps": ("batch",), "vector": ("batch", None)}
    program, _ = compile_program(WeightStore(network), call, bindings=bindings, dims=dims, passes=())
    assert set(operations(program.stages[SCHEDULE].graph)) == {"add.Tensor", "relu"}
    assert torch.equal(run_program(program, call), network(**call))


class MixesRows(nn.Module):
    """Takes a mean over the batch, which must not become a mean over half a batch."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        shared = torch.relu(x)
        return shared - shared.mean(0) + context


class SoftmaxOverRows(nn.Module):
    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return torch.softmax(x, 0).transpose(0, 1).transpose(0, 1) + context


@pytest.mark.parametrize("network", [MixesRows(), SoftmaxOverRows()])
def test_operations_over_the_batch_stay_in_the_step_stage(network: nn.Module) -> None:
    call = {"x": random(4, 3), "context": random(4, 3, seed=1)}
    dims = {"x": ("batch", None), "context": ("batch", None)}
    bindings = {"x": "latent", "context": "prompt"}
    program, _ = compile_program(WeightStore(network), call, bindings=bindings, dims=dims, passes=())
    assert not {"mean.dim", "softmax.int"} & operations(program.stages[SHARED].graph).keys()
    assert torch.equal(run_program(program, call), network(**call))


class PositionsFromSize(nn.Module):
    """Uses a value that comes from no input but is not constant, since it depends on a size that may change."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[1], dtype=x.dtype, device=x.device)


def test_values_made_from_a_size_are_not_frozen() -> None:
    network = PositionsFromSize()
    program, _ = compile_program(
        WeightStore(network), {"x": random(2, 6)}, bindings={}, dims={"x": (None, "length")}, passes=()
    )
    assert len(program.stages[WEIGHTS]) == 0
    for length in (6, 9, 3):
        x = random(2, length)
        assert torch.equal(run_program(program, {"x": x}), network(x))


class TimeAsWhole(nn.Module):
    """Uses the time value in an operation that does not broadcast one row over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 3)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return torch.cat([x, self.linear(timesteps[:, None])], dim=1)


def test_one_row_of_time_serves_operations_that_do_not_broadcast() -> None:
    network = TimeAsWhole()
    call = {"x": random(4, 5), "timesteps": torch.full((4,), 3.0)}
    program, _ = compile_program(
        WeightStore(network),
        call,
        bindings={"x": "latent", "timesteps": "time"},
        dims={"x": ("batch", None), "timesteps": ("batch",)},
        passes=(),
    )
    with torch.no_grad():
        time = program.function(TIME, {"batch": 1})({**program.constants(TIME), "timesteps": torch.full((1,), 3.0)})
        values = {**call, **time}
        values |= program.function(SHARED, {"batch": 4})({**program.constants(SHARED), **values})
        values |= program.function(STEP, {"batch": 4})({**program.constants(STEP), **values})
        torch.testing.assert_close(program.result(values), network(**call))
