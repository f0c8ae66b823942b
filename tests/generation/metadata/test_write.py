"""A picture's text contains the whole request, can be read back without loss, and adds nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modules.core.errors import OptionsError
from modules.generation.metadata.write import from_parameters, to_parameters
from modules.generation.options import GenerationOptions, HiresOptions, LoraChoice, TiledOptions

FACTS = {"Model hash": "0123456789", "Model": "tiny", "RNG": "CPU", "Version": "test"}
PLAIN = GenerationOptions(prompt="a cat", width=128, height=192, seed=7, scheduler="karras", checkpoint="tiny")


def read_back(options: GenerationOptions, index: int = 0) -> GenerationOptions:
    return from_parameters(to_parameters(options.resolved(64), index, FACTS))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"negative_prompt": "blurry, ugly", "prompt": 'two\nlines, "quoted", Steps: 3'},
        {"sampler": "dpmpp_2m_cfg_pp", "scheduler": "kl_optimal", "cfg": 0.75, "steps": 33},
        {"emphasis": "off", "rescale_cfg": 0.7},
        {"clip_skip": 2, "emphasis": "a1111", "vae": "my, vae", "prediction": "v", "stable_fast": "fused"},
        {"stable_fast": "full", "stable_fast_skip": 2},
        {"text_encoders": ("my, clip",)},
        {"refiner": "my, refiner", "refiner_start": 0.65},
        {"text_encoders": ("one", "two.safetensors")},
        {"loras": (LoraChoice(name="a b, c:d", strength=0.8, text_strength=0.0), LoraChoice(name="e"))},
        {"hires": HiresOptions(scale=1.5, method="bislerp", steps=7, denoise=0.4, cfg=3.0, sampler="euler")},
        {"tiled": TiledOptions(scale=1.5, method="my, upscaler", overlap=32)},
        {"hires": HiresOptions(width=640, height=512, keep_first_pass=True)},
    ],
)
def test_every_option_is_read_back(changes: dict[str, object]) -> None:
    options = replace(PLAIN, **changes)
    assert read_back(options) == options


def test_what_the_picture_did_not_have_is_cleared() -> None:
    options = read_back(PLAIN)
    assert options.loras == () and options.controls == () and options.hires is None and options.init is None


def test_a_refiner_is_written_as_a1111_reads_it() -> None:
    """Its start is written even if it is ours by default, and A1111 must count steps as we do."""
    text = to_parameters(replace(PLAIN, refiner="xl").resolved(64), 0, FACTS)
    assert "Refiner: xl, Refiner switch at: 0.8" in text and "Refiner switch by sampling steps: True" in text


def test_a_member_of_a_batch_names_its_place() -> None:
    again = read_back(replace(PLAIN, number=3, batch=2), index=3)
    assert (again.seed, again.batch, again.number, again.only) == (9, 2, 1, 1)


def test_a_picture_made_alone_has_its_own_seed() -> None:
    again = read_back(replace(PLAIN, number=3), index=2)
    assert (again.seed, again.images, again.only) == (9, 1, None)


def test_pictures_of_a1111_are_understood() -> None:
    text = (
        "a (cat:1.2), <lora:style:0.8>\nNegative prompt: dog\n"
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, "
        "Model hash: abc, Model: v1-5, Clip skip: 2, Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 10"
    )
    options = from_parameters(text)
    assert (options.sampler, options.scheduler) == ("dpmpp_2m", "karras")
    assert (options.width, options.height, options.seed, options.steps, options.cfg) == (512, 768, 42, 25, 6.5)
    assert (options.emphasis, options.clip_skip, options.checkpoint) == ("a1111", 2, "v1-5")
    assert options.hires == HiresOptions(scale=1.5, steps=10, denoise=0.4)


def test_an_old_label_with_its_schedule_is_understood() -> None:
    options = from_parameters("x\nSteps: 20, Sampler: DPM++ 2M SDE Karras, CFG scale: 7, Seed: 1, Size: 64x64")
    assert (options.sampler, options.scheduler) == ("dpmpp_2m_sde", "karras")


@pytest.mark.parametrize(
    "text", ["just words", "x\nSteps: many, Sampler: Euler, Seed: 1, Size: 64x64", "x\nSteps: 2, Seed: 1, Size: big"]
)
def test_damaged_text_is_a_sentence(text: str) -> None:
    with pytest.raises(OptionsError):
        from_parameters(text)
