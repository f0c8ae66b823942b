"""Captured steps on a GPU: same pictures, no recapture, fixed addresses, freed memory."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.generation.networks import VaeDecode
from modules.models.configs import UNetConfig
from modules.stable_fast import StableFastConfig, StableFastRunner, compile_module
from modules.stable_fast.runtime.adjoin import adjoin_projections
from tests import tiny
from tests.stable_fast.networks import inputs_for, latent, random, rel_error

pytestmark = pytest.mark.gpu

# Head size 64 and 128 channels per level: small, but accepted by every Triton kernel.
CONFIG = UNetConfig(channels=(64, 128, 256, 256), context_dim=64, heads=2, groups=16)
TIMESTEPS = [900.0, 500.0, 20.5]


def on_gpu(inputs: Conditioning) -> Conditioning:
    return Conditioning(texts=(TextInputs(inputs.texts[0].context.half().cuda()),))


def network_on_gpu(config: UNetConfig = CONFIG) -> nn.Module:
    return tiny.unet(config).half().cuda()


@torch.inference_mode()
def pictures(runner: StableFastRunner | EagerRunner, inputs: Conditioning, x: Tensor) -> list[Tensor]:
    runner.prepare(on_gpu(inputs), TIMESTEPS)
    return [runner.step(x.half().cuda(), timestep) for timestep in TIMESTEPS]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(rel_error(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("level", ["fused", "full"])
@pytest.mark.parametrize("config", [CONFIG, tiny.SD2_UNET], ids=["SD1", "SD2"])
def test_sizes_batches_and_guidance(level: str, config: UNetConfig) -> None:
    network = network_on_gpu(config)
    runner, eager = StableFastRunner(network, StableFastConfig(level=level)), EagerRunner(network)
    for images, halves, height, width in ((1, 2, 16, 16), (2, 2, 8, 24), (1, 1, 24, 8), (4, 2, 16, 16), (1, 2, 16, 16)):
        inputs, x = inputs_for(config, images=images, halves=halves), latent(images, height, width)
        assert worst(pictures(runner, inputs, x), pictures(eager, inputs, x)) < 2e-2
    assert runner.report.level == level, runner.report.reason
    assert runner.report.counters.traces == 1
    assert runner.report.counters.captures == (4 if level == "full" else 0)


def test_graph_level_has_the_bits_of_eager() -> None:
    network = network_on_gpu()
    runner, eager = StableFastRunner(network, StableFastConfig(level="graph")), EagerRunner(network)
    for _ in range(2):
        found, expected = pictures(runner, inputs_for(), latent()), pictures(eager, inputs_for(), latent())
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert runner.report.counters.captures == 1


def test_weights_changed_in_place_need_no_capture_and_come_back_bit_equal() -> None:
    network = network_on_gpu()
    runner, eager = StableFastRunner(network), EagerRunner(network)
    never = pictures(runner, inputs_for(), latent())
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.03)
    runner.refresh_weights()
    changed = pictures(runner, inputs_for(), latent())
    assert worst(changed, pictures(eager, inputs_for(), latent())) < 2e-2 < worst(changed, never)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(before[name])
    runner.refresh_weights()
    again = pictures(runner, inputs_for(), latent())
    assert all(torch.equal(one, other) for one, other in zip(again, never, strict=True))
    assert runner.report.counters.captures == 1


def test_a_new_prompt_needs_no_capture() -> None:
    network = network_on_gpu()
    runner, eager = StableFastRunner(network), EagerRunner(network)
    for seed in (1, 2, 1):
        inputs = inputs_for(seed=seed)
        assert worst(pictures(runner, inputs, latent()), pictures(eager, inputs, latent())) < 2e-2
    assert runner.report.counters.captures == 1


@torch.inference_mode()
def test_results_are_never_overwritten() -> None:
    runner = StableFastRunner(network_on_gpu())
    runner.prepare(on_gpu(inputs_for()), TIMESTEPS)
    kept = [runner.step(latent(seed=seed).half().cuda(), 500.0) for seed in range(3)]
    copies = [tensor.clone() for tensor in kept]
    runner.step(latent(seed=9).half().cuda(), 20.5)
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_releasing_gives_memory_back() -> None:
    network = network_on_gpu()
    allocated: list[int] = []
    for _ in range(4):  # the first round also allocates workspaces of cuBLAS and cuDNN for good
        runner = StableFastRunner(network)
        pictures(runner, inputs_for(), latent())
        runner.release()
        gc.collect()
        torch.cuda.empty_cache()
        allocated.append(torch.cuda.memory_allocated())
    assert max(allocated[1:]) <= allocated[0] + (1 << 20)


def test_level_fused_prepares_fewer_weights() -> None:
    network, owned = network_on_gpu().to(memory_format=torch.channels_last), {}  # the layout of weights on a GPU
    adjoin_projections(network)  # as the product does, so that stacked weights are no copies
    for level in ("fused", "full"):
        runner = StableFastRunner(network, StableFastConfig(level=level))
        pictures(runner, inputs_for(CONFIG), latent())
        owned[level] = runner.report.weights_mib
    upsampled = [part for part in network.modules() if type(part).__name__ == "Upsample"]
    assert len(upsampled) == 3
    summed = sum(16 * part.conv.in_channels * part.conv.out_channels * 2 for part in upsampled) / 2**20
    assert owned["full"] - owned["fused"] == pytest.approx(summed, rel=0.01)


def test_graphs_that_need_too_much_memory_are_not_kept() -> None:
    network = network_on_gpu()
    runner = StableFastRunner(network, StableFastConfig(graph_memory_mib=0))
    found = pictures(runner, inputs_for(), latent(1, 64, 64))
    assert worst(found, pictures(EagerRunner(network), inputs_for(), latent(1, 64, 64))) < 2e-2
    assert "fused instead of full" in runner.report.status_line()


@torch.no_grad()
def test_compiled_vae_decoder() -> None:
    module = VaeDecode(tiny.vae()).eval().half().cuda()
    dims = {"latent": ("batch", None, "height", "width")}
    compiled = compile_module(module, (random(1, 4, 8, 8).half().cuda(),), dims=dims)
    for shape in ((1, 4, 8, 8), (1, 4, 16, 8), (1, 4, 8, 8)):
        x = random(*shape).half().cuda()
        assert rel_error(compiled(x), module(x)) < 2e-2
    assert compiled.report.counters.captures == 2 and compiled.report.counters.traces == 1
