"""compile_module on all kinds of networks, and the passes at the full SD1.5 and SD2.1 shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL as DiffusersVAE
from torch import Tensor, nn

from modules.models.configs import SD15_UNET, SD21_UNET, TextConfig, UNetConfig
from modules.models.unet import UNet
from modules.stable_fast import CompiledModule, compile_module
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.fuse import moments_of
from modules.stable_fast.graph.staging import PROMPT, STEP
from modules.stable_fast.passes import PASSES
from modules.stable_fast.runtime.adjoin import adjoin_projections
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.unet_call import BINDINGS
from tests import tiny
from tests.stable_fast.networks import UNET_DIMS, operations, random, rel_error, run_program

pytestmark = pytest.mark.own_cache

LAYOUT_WORK = {"permute", "transpose.int", "reshape", "contiguous", "clone", "cat", "group_norm", "conv2d", "linear"}


class Encode(nn.Module):
    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae.encode_moments(image)


class Decode(Encode):
    def forward(self, image: Tensor) -> Tensor:
        return self.vae.decode(image)


@torch.no_grad()
def largest_error(compiled: Any, module: nn.Module, call: Mapping[str, Any]) -> float:
    found, expected = compiled(**call), module(**call)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    return max(rel_error(one, other) for one, other in pairs)


def test_vae_decoder() -> None:
    module = Decode(tiny.vae()).eval()
    compiled = compile_module(module, (random(1, 4, 8, 8),), dims={"image": ("batch", None, "height", "width")})
    for shape in ((1, 4, 8, 8), (2, 4, 7, 5), (1, 4, 16, 8)):
        assert largest_error(compiled, module, {"image": random(*shape)}) < 1e-5
    assert compiled.report.counters.traces == 1
    step = operations(compiled.compile(random(1, 4, 8, 8)).stages[STEP].graph)
    assert not LAYOUT_WORK & step.keys() and step["lightdiffusion.upsample_conv2d"] == 3
    assert step["lightdiffusion.attention_packed_qkv"] == 1


def test_vae_encoder_and_a_size_that_does_not_fit_the_names() -> None:
    module = Encode(tiny.vae()).eval()
    compiled = compile_module(module, (random(1, 3, 32, 32),), dims={"image": ("batch", None, "8*height", "8*width")})
    for shape in ((1, 3, 32, 32), (2, 3, 64, 32)):
        assert largest_error(compiled, module, {"image": random(*shape)}) < 1e-5
    assert compiled.report.counters.traces == 1
    assert largest_error(compiled, module, {"image": random(1, 3, 36, 32)}) < 1e-5
    assert compiled.report.counters.traces == 2


@pytest.mark.parametrize("config", [tiny.SD1_TEXT, tiny.SD2_TEXT], ids=["clip", "openclip"])
def test_text_encoders(config: TextConfig) -> None:
    module = tiny.text_model(config)
    example = {"embeddings": random(1, 77, config.width), "skip": 0}
    compiled = compile_module(module, example, dims={"embeddings": ("batch", None, None)})
    for batch, skip in ((1, 0), (3, 0), (2, 1)):
        call = {"embeddings": random(batch, 77, config.width), "skip": skip}
        assert largest_error(compiled, module, call) < 1e-5
    assert compiled.report.counters.traces == 2  # one per clip skip


def test_controlnet_hint_runs_with_the_prompt() -> None:
    module = tiny.controlnet(tiny.SD1_SHORT_UNET)

    def call(batch: int, height: int) -> dict[str, Tensor]:
        x, hint = random(batch, 4, height, 8), random(batch, 3, 8 * height, 64)
        return {"x": x, "hint": hint, "timesteps": torch.full((batch,), 7.0), "context": random(batch, 77, 64)}

    compiled = compile_module(
        module,
        call(2, 8),
        bindings={"x": "latent", "hint": "prompt", "timesteps": "time", "context": "prompt"},
        dims={**UNET_DIMS, "hint": ("batch", None, "64*height", "64*width")},
    )
    for size in ((2, 8), (1, 16)):
        assert largest_error(compiled, module, call(*size)) < 1e-5
    program = compiled.compile(**call(2, 8))
    assert operations(program.stages[PROMPT].graph)["lightdiffusion.conv2d_epilogue"] == 8


@torch.no_grad()
def test_prepared_inputs_run_once() -> None:
    module = tiny.controlnet(tiny.SMALL_UNET)
    x, hint, context = random(1, 4, 8, 8), random(1, 3, 64, 64), random(1, 77, 64)
    bindings = {"x": "latent", "hint": "prompt", "timesteps": "time", "context": "prompt"}
    compiled = compile_module(module, {"x": x, "hint": hint, "timesteps": torch.zeros(1), "context": context}, bindings)
    compiled.prepare(hint=hint, context=context)
    for timestep in (7.0, 3.0):
        times = torch.full((1,), timestep)
        found, expected = compiled(x, timesteps=times), module(x, hint, times, context)
        assert max(rel_error(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5
    compiled.prepare(hint=hint.flip(-1), context=context)
    found, expected = compiled(x, timesteps=times), module(x, hint.flip(-1), times, context)
    assert max(rel_error(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5


class Shift(nn.Module):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x + c


@torch.no_grad()
def test_a_call_overrules_what_was_prepared_for_itself_only() -> None:
    x, one, two = random(2, 3), random(2, 3, seed=1), random(2, 3, seed=2)
    compiled = compile_module(Shift().eval(), {"c": one, "x": x}, {"c": "prompt"})  # not in the module's order
    compiled.prepare(c=one)
    for found, expected in (
        (compiled(x), x + one), (compiled(x, two), x + two), (compiled(x), x + one),
        (compiled(x, c=two), x + two), (compiled(x), x + one),
    ):  # fmt: skip
        assert torch.equal(found, expected)
    assert compiled.report.counters.traces == 1


def test_diffusers_vae_decoder_unchanged() -> None:
    module = tiny.randomise(
        DiffusersVAE(
            block_out_channels=(16, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=4,
        )
    ).decoder
    compiled = compile_module(module, (random(1, 4, 8, 8),), dims={"sample": ("batch", None, "height", "width")})
    for shape in ((1, 4, 8, 8), (2, 4, 7, 5)):
        assert largest_error(compiled, module, {"sample": random(*shape)}) < 1e-5
    matches = compiled.report.programs[0].matches
    assert matches["upsample_conv2d"] == {"upsample_conv2d": 3} and matches["packed_qkv"] == {"qkv": 1}


@torch.no_grad()
def test_changed_weights_of_a_compiled_module() -> None:
    module = Decode(tiny.vae()).eval()
    compiled = compile_module(module, (random(1, 4, 8, 8),))
    x = random(1, 4, 8, 8, seed=3)
    before = compiled(x)
    for parameter in module.parameters():
        parameter.mul_(1.01)
    compiled.refresh_weights()
    assert rel_error(compiled(x), module(x)) < 1e-5 < rel_error(compiled(x), before)


def test_a_second_form_of_call_shares_prepared_weights() -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    store = WeightStore(network)
    call = {"x": random(2, 4, 8, 8), "timesteps": torch.zeros(2), "context": random(2, 77, 64)}
    compile_program(store, call, bindings=BINDINGS, dims=UNET_DIMS, passes=PASSES)
    size = store.owned_bytes()
    compile_program(store, call, bindings=BINDINGS, dims={}, passes=PASSES)
    assert store.owned_bytes() == size > 0


def test_projections_that_lie_together_are_stacked_without_a_copy() -> None:
    """As on a GPU, weights are channels-last with adjacent projections, so only sub-pixel weights are new."""
    network, apart = tiny.unet(tiny.SMALL_UNET), tiny.unet(tiny.SMALL_UNET)
    expected = network.state_dict()
    network.to(memory_format=torch.channels_last)
    adjoin_projections(network)
    places = [parameter.data_ptr() for parameter in network.parameters()]
    adjoin_projections(network)  # changes nothing
    assert places == [parameter.data_ptr() for parameter in network.parameters()]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    call = {"x": random(2, 4, 8, 8), "timesteps": torch.zeros(2), "context": random(2, 77, 64)}
    stores = [WeightStore(network), WeightStore(apart)]
    programs = [compile_program(s, call, bindings=BINDINGS, dims=UNET_DIMS, passes=PASSES)[0] for s in stores]
    assert stores[0].owned_bytes() < 0.5 * stores[1].owned_bytes()
    for _ in range(2):
        assert rel_error(*(run_program(program, call) for program in programs)) < 1e-6
        for store in stores:
            with torch.no_grad():
                for name, parameter in store.module.named_parameters():
                    if "attn" in name or "emb_layers" in name:
                        parameter.mul_(1.5)
            store.refresh()


@pytest.mark.parametrize("name", ["input", "id"])
def test_an_argument_may_be_called_like_a_builtin(name: str) -> None:
    """FX renames such placeholders. nn.Sequential's argument is called `input`."""
    definitions: dict[str, Any] = {"nn": nn}
    exec(f"class Module(nn.Module):\n    def forward(self, {name}): return {name}.sin() + {name}", definitions)
    x = torch.randn(3)
    for _ in range(2):
        compiled = compile_module(definitions["Module"]().eval(), {name: x}, {name: "latent"}, {name: ("batch",)})
        assert torch.equal(compiled(torch.ones(5)), torch.ones(5).sin() + 1)
    compiled = compile_module(nn.Sequential(nn.SiLU(), nn.GELU()).eval(), [x])
    assert rel_error(compiled(x), nn.functional.gelu(nn.functional.silu(x))) < 1e-6


def test_a_misspelt_moment_is_an_error() -> None:
    with pytest.raises(ValueError, match="'latents', which is not one of prompt, time, latent, step"):
        compile_module(nn.SiLU().eval(), [torch.randn(3)], {"input": "latents"})


class Scaled(nn.Module):
    def forward(self, pair: tuple[Tensor, float]) -> Tensor:
        return pair[0] * pair[1]


def test_a_number_beside_a_tensor_is_part_of_the_call() -> None:
    x = torch.randn(3)
    compiled = compile_module(Scaled().eval(), {"pair": (x, 2.0)})
    assert torch.equal(compiled(pair=(x, 2.0)), x * 2)
    assert torch.equal(compiled(pair=(x, 3.0)), x * 3)


@pytest.mark.parametrize("asked,in_force", [("full", "fused"), ("graph", "off")])
def test_without_an_nvidia_gpu_the_level_is_told(asked: str, in_force: str) -> None:
    x = torch.randn(3)
    compiled = CompiledModule(nn.SiLU().eval(), level=asked)
    assert rel_error(compiled(x), nn.functional.silu(x)) < 1e-6
    assert compiled.report.level == in_force and "NVIDIA" in compiled.report.reason


def test_binding_of_flattened_inputs() -> None:
    x = torch.ones(1)
    example = {"control": (x, x), "x": (x, x), "time_embedding": x, "cond": {"text": x, "ids": x}, "scale": 2.0}
    bindings = {"control": "step", "x_0": "time", "x": "prompt", "cond": "prompt", "cond_ids": "time", "time": "time"}
    assert moments_of(example, bindings) == {
        "control_0": "step", "control_1": "step", "x_0": "time", "x_1": "prompt", "time_embedding": "step",
        "cond_text": "prompt", "cond_ids": "time",
    }  # fmt: skip


@pytest.mark.parametrize("config", [SD15_UNET, SD21_UNET], ids=["SD1.5", "SD2.1"])
def test_full_size_networks_match_as_the_tiny_ones(config: UNetConfig) -> None:
    """Uses the real shapes in fp16 on meta tensors: everything is traced and fused, but nothing is computed."""
    with torch.device("meta"):
        network = UNet(config).half().eval()
        call = {
            "x": torch.empty(2, 4, 64, 64, dtype=torch.float16),
            "timesteps": torch.zeros(2),
            "context": torch.empty(2, 77, config.context_dim, dtype=torch.float16),
        }
    _, report = compile_program(WeightStore(network), call, bindings=BINDINGS, dims=UNET_DIMS, passes=PASSES)
    assert report.matches["group_norm_silu"] == {"group_norm": 61, "silu": 45}
    assert report.matches["layer_norm"] == {"layer_norm": 48} and report.matches["linear_geglu"] == {"linear_geglu": 16}
    assert report.matches["packed_qkv"] == {"qkv": 16, "kv": 16}
    assert report.matches["attention_packed"] == {"attention_packed": 32}
    assert report.nodes_after < 0.5 * report.nodes_before
