"""The node in a stand-in for ComfyUI: same results as without it, accelerated, never with old weights."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from integrations.comfyui.network import FastNetwork
from tests.integrations.comfyui.stand_in import BaseModel, Model


@pytest.fixture
def plain() -> Model:
    torch.manual_seed(0)
    return Model(BaseModel())


def accelerated(model: Model, level: str = "full") -> Model:
    return NODE_CLASS_MAPPINGS["StableFast"]().accelerate(model, level)[0]


def network(model: Model) -> FastNetwork:
    return vars(model.model)["_stable_fast_networks"]["full"]


def fused_steps(model: Model) -> int:
    compiled = network(model).compiled
    return compiled.report.counters.fused_steps if compiled else 0


def residuals(rows: int = 2, size: int = 8) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(3)
    high, middle, low = (torch.randn(rows, 8, side, side, generator=draw) for side in (size, size, size // 2))
    return {"output": [high, low], "middle": [middle], "input": []}


def test_the_node_offers_its_levels_and_leaves_the_given_model_alone(plain: Model) -> None:
    levels, options = NODE_CLASS_MAPPINGS["StableFast"].INPUT_TYPES()["required"]["level"]
    assert (set(levels), options["default"]) == ({"off", "graph", "fused", "full"}, "full")
    assert NODE_DISPLAY_NAME_MAPPINGS == {"StableFast": "Stable-Fast"}
    accelerated(plain)
    assert plain.model_options == {}


def test_pictures_are_the_same_at_two_sizes_with_labels_and_with_a_controlnet(plain: Model) -> None:
    fast = accelerated(plain)
    steps: list[dict[str, Any]] = [{}, {"rows": 4}, {"size": 16}, {"y": torch.ones(2, 5)}]
    for step in steps:
        torch.testing.assert_close(fast.step(**step), plain.step(**step), rtol=1e-4, atol=1e-5)
    for size in (8, 16):
        theirs = plain.step(size=size, control=residuals(size=size))
        assert not torch.allclose(theirs, plain.step(size=size))
        ours = fast.step(size=size, control=residuals(size=size))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert fused_steps(fast) == 2  # one for each size since the ControlNet came


def test_a_gap_among_residuals_stays_a_gap(plain: Model) -> None:
    control = {"output": [residuals()["output"][0], None]}
    theirs = plain.step(control={"output": list(control["output"])})
    torch.testing.assert_close(accelerated(plain).step(control=control), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_place", [True, False])
def test_loras_are_followed(plain: Model, in_place: bool) -> None:
    fast = accelerated(plain)
    fast.step()
    layer = plain.model.diffusion_model.text
    for lora in (1, 2):
        weight = layer.weight.detach() + lora
        if in_place:
            layer.weight.data.copy_(weight)
        else:
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.model.current_weight_patches_uuid = lora
        torch.testing.assert_close(fast.step(), plain.step(), rtol=1e-4, atol=1e-4)
    assert fused_steps(fast) == 3


def test_models_and_clones_share_one_network_which_is_freed_on_unloading(plain: Model) -> None:
    one, other = accelerated(plain), accelerated(plain.clone()).clone()
    one.step()
    compiled = network(one).compiled
    other.step()
    assert network(other).compiled is compiled
    assert fused_steps(other) == 2
    one.unload()
    torch.testing.assert_close(one.step(), plain.step(), rtol=1e-4, atol=1e-5)
    assert compiled is not None and len(compiled.report.programs) == 2  # made again after it was freed


def test_a_patched_unet_runs_eagerly_and_the_reason_is_told_once(
    plain: Model, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"patches": {"input_block_patch": [lambda h: h * 2]}}
    fast = accelerated(plain)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(
                fast.step(transformer_options=dict(options)), plain.step(transformer_options=dict(options))
            )
    assert [line.count("another node changes the UNet by patches") for line in caplog.messages] == [1]
    assert fused_steps(fast) == 0


def test_a_wrapper_of_another_node_stays_in_force(plain: Model) -> None:
    plain.set_model_unet_function_wrapper(lambda apply, call: 2 * apply(call["input"], call["timestep"], **call["c"]))
    fast = accelerated(plain)
    torch.testing.assert_close(fast.step(), plain.step(), rtol=1e-4, atol=1e-5)
    assert fused_steps(fast) == 1
