"""All passes on whole UNets: exact match counts, nothing left over, no layout work in the step stage, same results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modules.models.configs import SDXL_UNET, UNetConfig
from modules.models.unet import UNet
from modules.stable_fast import compile_module
from modules.stable_fast.fuse import fuse
from modules.stable_fast.graph.staging import PROMPT, SCHEDULE, SHARED, STEP, TIME, Stage, split
from modules.stable_fast.passes import LEAN_PASSES, PASSES
from modules.stable_fast.report import CompileReport
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.unet_call import BINDINGS
from tests import tiny
from tests.stable_fast.networks import (
    UNET_DIMS,
    XL_UNET,
    compiled_unet,
    operations,
    random,
    rel_error,
    run_program,
    unet_call,
)

CONFIGS = {"SD1": tiny.SD1_UNET, "SD2": tiny.SD2_UNET}
Compiled = tuple[nn.Module, Program, CompileReport]


@pytest.fixture(scope="module", params=list(CONFIGS))
def compiled(request: pytest.FixtureRequest) -> Compiled:
    config = CONFIGS[request.param]
    network = tiny.unet(config)
    return (network, *compiled_unet(network, unet_call(config), PASSES))


def test_match_counts_are_exactly_those_of_the_architecture(compiled: Compiled) -> None:
    matches = compiled[2].matches
    assert matches["group_norm_silu"] == {"group_norm": 61, "silu": 45}
    assert matches["layer_norm"] == {"layer_norm": 48}
    assert matches["linear_geglu"] == {"linear_geglu": 16}
    assert matches["packed_qkv"] == {"qkv": 16, "kv": 16}
    assert matches["attention_packed"] == {"attention_packed": 32}
    assert matches["upsample_conv2d"] == {"upsample_conv2d": 3}
    assert matches["concat"] == {"concat": 12}
    # 22 residual blocks: time vector into the first convolution, skip connection into the second.
    assert matches["conv2d_epilogue"] == {"convolution": 49, "vector": 22, "residual": 22}
    # 3 residual additions in each of 16 transformer blocks, and 16 around them.
    assert matches["linear_epilogue"]["residual"] == 64


def test_lean_passes_leave_out_only_what_adds_weights(compiled: Compiled) -> None:
    network, _, full = compiled
    call = unet_call(tiny.SD2_UNET if network.config is tiny.SD2_UNET else tiny.SD1_UNET)
    program, report = compiled_unet(network, call, LEAN_PASSES)
    adding = ("upsample_conv2d", "packed_qkv_of_any", "packed_vector")
    expected = {name: matches for name, matches in full.matches.items() if name not in adding}
    expected["conv2d_epilogue"] = expected["conv2d_epilogue"] | {"convolution": 49 + 3}
    expected["linear_epilogue"] = expected["linear_epilogue"] | {
        "linear": full.matches["linear_epilogue"]["linear"] + 21
    }
    assert report.matches == expected
    assert operations(program.stages[STEP].graph)["upsample_nearest2d.vec"] == 3


def test_nothing_is_left_unfused(compiled: Compiled) -> None:
    stages = compiled[1].stages
    step = operations(stages[STEP].graph) + operations(stages[SHARED].graph)
    views = {"as_tokens", "as_image"}
    assert {name for name in step if name not in views and not name.startswith("lightdiffusion")} == set()
    assert operations(stages[PROMPT].graph) == Counter({"lightdiffusion.linear_epilogue": 16})
    # Two of an MLP, and one for the 22 residual blocks.
    assert operations(stages[TIME].graph)["lightdiffusion.linear_epilogue"] == 2 + 1


@torch.no_grad()
def test_sdxl_leaves_one_addition_in_the_step() -> None:
    """Each embedding projection runs in the schedule stage, and transformer blocks in a row fuse like single ones."""
    network = tiny.unet(XL_UNET)
    call = unet_call(XL_UNET)
    program, report = compiled_unet(network, call, PASSES)
    assert_sdxl_is_fused(report.matches, program.stages, blocks=17)
    assert operations(program.stages[PROMPT].graph) == Counter({"lightdiffusion.linear_epilogue": 17 + 2})
    for size in ((2, 16, 16, 77), (1, 8, 24, 154)):
        call = unet_call(XL_UNET, **dict(zip(("batch", "height", "width", "tokens"), size, strict=True)))
        assert rel_error(run_program(program, call), network(**call)) < 1e-5


@pytest.mark.slow
def test_sdxl_at_full_size_is_fused_like_the_tiny_one() -> None:
    with torch.device("meta"):
        network, example = UNet(SDXL_UNET).eval(), unet_call(XL_UNET)
        example |= {"context": torch.empty(2, 77, 2048), "vector": torch.empty(2, 2816)}
    fused = fuse(network, {name: value.to("meta") for name, value in example.items()}, BINDINGS, UNET_DIMS, PASSES)
    assert_sdxl_is_fused(fused.matches, split(fused.traced.graph), blocks=70)


def assert_sdxl_is_fused(matches: Mapping[str, Mapping[str, int]], stages: Mapping[str, Stage], *, blocks: int) -> None:
    """`blocks` transformer blocks in 11 transformers, and 17 residual blocks."""
    assert matches["group_norm_silu"] == {"group_norm": 46, "silu": 35}
    assert matches["layer_norm"] == {"layer_norm": 3 * blocks} and matches["linear_geglu"] == {"linear_geglu": blocks}
    assert matches["packed_qkv"] == {"qkv": blocks, "kv": blocks}
    assert matches["attention_packed"] == {"attention_packed": 2 * blocks}
    assert matches["concat"] == {"concat": 9} and matches["upsample_conv2d"] == {"upsample_conv2d": 2}
    # The first convolution of the first block runs once for both halves, so its vector is added after it.
    assert matches["conv2d_epilogue"] == {"convolution": 38, "vector": 16, "residual": 17}
    assert matches["linear_epilogue"]["residual"] == 3 * blocks + 11
    step = operations(stages[STEP].graph) + operations(stages[SHARED].graph)
    assert {name for name in step if not name.startswith(("lightdiffusion.", "as_"))} == {"add.Tensor"}
    assert step["add.Tensor"] == 1
    # Linear layers in the step, besides GEGLU: two skip connections, into and out of 11 transformers, 5 in each block.
    assert step["lightdiffusion.linear_epilogue"] == 2 + 2 * 11 + 5 * blocks
    assert operations(stages[SCHEDULE].graph)["lightdiffusion.linear_epilogue"] == 1


class CountCopies(TorchDispatchMode):
    """Counts the operations that move a tensor to another layout."""

    MOVES = ("aten::clone", "aten::copy_", "aten::contiguous", "aten::_to_copy", "aten::cat", "aten::constant_pad_nd")

    def __init__(self) -> None:
        super().__init__()
        self.inside = Counter[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        name = func.name().split(".")[0]
        if name in self.MOVES:
            self.inside[name] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_views_between_tokens_and_pictures_move_nothing(compiled: Compiled) -> None:
    """Runs the step stage node by node. Views must alias, and every result must be channels-last or contiguous."""
    network, program, _ = compiled
    call = {
        **unet_call(network.config),
        "x": unet_call(network.config)["x"].contiguous(memory_format=torch.channels_last),
    }
    sizes = program.measure(call)
    values = dict(call)
    for stage in (PROMPT, TIME, SHARED):
        values |= program.function(stage, sizes)({**program.constants(stage), **values})
    function = program.function(STEP, sizes)
    values |= program.constants(STEP)
    found: dict[object, torch.Tensor] = {}
    for node in function.module.graph.nodes:
        if node.op == "placeholder":
            found[node] = values[node.name]
        elif node.op == "call_function":
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), found.__getitem__)
            if getattr(node.target, "__name__", "") in ("as_tokens", "as_image"):
                with CountCopies() as copies:
                    found[node] = node.target(*args, **kwargs)
                assert not copies.inside and found[node].data_ptr() == args[0].data_ptr()
            else:
                found[node] = node.target(*args, **kwargs)
            layout = torch.channels_last if found[node].dim() == 4 else torch.contiguous_format
            assert found[node].is_contiguous(memory_format=layout), node.name


@pytest.mark.parametrize(("batch", "height", "width", "tokens"), [(2, 16, 16, 77), (1, 8, 24, 154), (4, 24, 8, 77)])
@torch.no_grad()
def test_close_to_eager_at_every_size(compiled: Compiled, batch: int, height: int, width: int, tokens: int) -> None:
    network, program, _ = compiled
    call = unet_call(network.config, batch=batch, height=height, width=width, tokens=tokens)
    assert rel_error(run_program(program, call), network(**call)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", [replace(config, res_blocks=1) for config in CONFIGS.values()], ids=CONFIGS)
@torch.no_grad()
def test_half_precision_is_as_exact_as_eager(config: UNetConfig, dtype: torch.dtype) -> None:
    """Compares eager and fused with fp32: fusion may round differently, but not worse."""
    call = unet_call(config)
    expected = tiny.unet(config)(**call)
    network = tiny.unet(config).to(dtype)
    call |= {name: call[name].to(dtype) for name in ("x", "context")}
    program, report = compiled_unet(network, call, PASSES)
    assert report.matches["attention_packed"] == {"attention_packed": 20}  # with SD2's conversions to fp32 around it
    fused, eager = run_program(program, call), network(**call)
    assert rel_error(fused, expected) < 1.25 * rel_error(eager, expected)


@pytest.mark.parametrize("linear", [False, True])
@torch.no_grad()
def test_diffusers_unet_unchanged(linear: bool) -> None:
    network = tiny.randomise(
        UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(64, 64, 128, 128),
            cross_attention_dim=64,
            attention_head_dim=2,
            norm_num_groups=16,
            use_linear_projection=linear,
        )
    )

    def call(batch: int, height: int, width: int) -> dict[str, object]:
        return {
            "sample": random(batch, 4, height, width),
            "timestep": torch.full((batch,), 500.0),
            "encoder_hidden_states": random(batch, 77, 64),
            "return_dict": False,
        }

    compiled = compile_module(
        network,
        call(2, 16, 16),
        bindings={"sample": "latent", "timestep": "time", "encoder_hidden_states": "prompt"},
        dims={
            "sample": ("batch", None, "8*height", "8*width"),
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "tokens", None),
        },
    )
    matches = compiled.report.programs[0].matches
    assert matches["group_norm_silu"] == {"group_norm": 61, "silu": 45}
    assert matches["layer_norm"] == {"layer_norm": 48} and matches["linear_geglu"] == {"linear_geglu": 16}
    assert matches["packed_qkv"] == {"qkv": 16, "kv": 16} and matches["attention_packed"] == {"attention_packed": 32}
    assert matches["concat"] == {"concat": 12} and matches["upsample_conv2d"] == {"upsample_conv2d": 3}
    for size in ((2, 16, 16), (1, 8, 24)):
        assert rel_error(compiled(**call(*size))[0], network(**call(*size))[0]) < 1e-5
    assert compiled.report.counters.traces == 1
