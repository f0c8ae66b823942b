"""StableFastPatcher on a real ModelPatcher: clones, LoRA on and off, two checkpoints in turn."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from modules.loader.patcher import ModelPatcher
from modules.stable_fast import StableFastConfig, StableFastPatcher
from tests import tiny
from tests.stable_fast.networks import inputs_for, latent, random, rel_error

WEIGHTS = (
    "input_blocks.1.1.transformer_blocks.0.attn1.to_v.weight",
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    "output_blocks.1.1.conv.weight",
)


@dataclass(frozen=True)
class LowRank:
    """A LoRA of any rank, for linear layers and convolutions."""

    rank: int
    slice: None = None

    def apply(self, weight: Tensor, strength: float) -> Tensor:
        flat = weight.flatten(1)
        change = random(flat.shape[0], self.rank, seed=1) @ random(self.rank, flat.shape[1], seed=2)
        return weight + strength * 0.05 * change.view_as(weight)


def with_lora(model: ModelPatcher, rank: int, strength: float) -> ModelPatcher:
    patched = model.clone()
    patched.add_patches({name: [LowRank(rank)] for name in WEIGHTS}, strength)
    return patched


@torch.inference_mode()
def picture(model: ModelPatcher) -> Tensor:
    assert model.unet_function_wrapper is not None
    runner = model.unet_function_wrapper(model.module)
    runner.prepare(inputs_for(), [900.0, 500.0])
    runner.step(latent(), 900.0)
    return runner.step(latent(), 500.0)


@torch.no_grad()
def eager(model: ModelPatcher) -> Tensor:
    context = inputs_for().texts[0].context
    return model.module(torch.cat([latent()] * 2), torch.full((2,), 500.0), context)


def test_lora_on_stronger_other_rank_and_off() -> None:
    model = ModelPatcher(tiny.unet(tiny.SMALL_UNET), "cpu")
    patcher = StableFastPatcher()
    plain = patcher.apply(model)
    never = picture(plain)
    pictures = []
    for rank, strength in ((4, 0.5), (4, 1.0), (16, 1.0)):
        patched = patcher.apply(with_lora(model, rank, strength))
        patched.apply()
        pictures.append(picture(patched))
        assert rel_error(pictures[-1], eager(patched)) < 1e-5
        assert rel_error(pictures[-1], never) > 1e-4
    assert len({float(image.sum()) for image in pictures}) == 3
    plain.apply()
    assert torch.equal(picture(plain), never)
    assert patcher.runner is not None and patcher.runner.report.counters.traces == 1


def test_the_model_itself_stays_as_it_was() -> None:
    model = ModelPatcher(tiny.unet(tiny.SMALL_UNET), "cpu")
    patched = StableFastPatcher().apply(model)
    assert model.unet_function_wrapper is None and patched.unet_function_wrapper is not None
    assert patched.module is model.module


def test_level_off_puts_nothing_in_front() -> None:
    patched = StableFastPatcher(StableFastConfig(level="off")).apply(ModelPatcher(tiny.unet(tiny.SMALL_UNET), "cpu"))
    assert patched.unet_function_wrapper is None


def test_two_checkpoints_in_turn_give_memory_back() -> None:
    patcher = StableFastPatcher()
    freed: list[weakref.ref[object]] = []
    for seed in (0, 1, 0):
        model = ModelPatcher(tiny.unet(tiny.SMALL_UNET, seed), "cpu")
        patched = patcher.apply(model)
        assert rel_error(picture(patched), eager(patched)) < 1e-5
        freed += [weakref.ref(model.module), weakref.ref(patcher.runner)]
        del model, patched
    gc.collect()
    assert [reference() is None for reference in freed] == [True, True, True, True, False, False]
    patcher.release()
    gc.collect()
    assert all(reference() is None for reference in freed)


def test_a_released_model_says_so() -> None:
    patcher = StableFastPatcher()
    model = ModelPatcher(tiny.unet(tiny.SMALL_UNET), "cpu")
    patched = patcher.apply(model)
    patcher.release()
    assert not model.on_weights_changed
    with pytest.raises(RuntimeError, match="released"):
        picture(patched)
