"""File names of few-step models, as they are published, and the settings that they suggest."""

from __future__ import annotations

import pytest

from modules.generation.few_steps.presets import LOW_CFG, PRESETS, preset_in
from modules.generation.options import GenerationOptions, default_of


@pytest.mark.parametrize(
    ("file", "name", "steps"),
    [
        ("sd_xl_turbo_1.0_fp16", "turbo", 4),
        ("dreamshaperXL_v21TurboDPMSDE", "turbo", 4),
        ("sdxl_lightning_4step", "lightning", 4),
        ("sdxl_lightning_8step", "lightning", 8),
        ("RealVisXL_V4.0_Lightning", "lightning", 4),
        ("juggernautXL_v9Rdphoto2Lightning", "lightning", 4),
        ("Hyper-SDXL-8steps", "hyper", 8),
        ("realisticVisionV60B1_v51HyperVAE", "hyper", 8),
        ("LCM_Dreamshaper_v7", "lcm", 4),
        ("dmd2_sdxl_4step_unet_fp16", "dmd2", 4),
        ("someXL_DMD_8steps", "dmd2", 4),
    ],
)
def test_checkpoints_are_recognised_by_the_words_of_their_names(file: str, name: str, steps: int) -> None:
    preset = preset_in(file, lora=False)
    assert preset is not None and (preset.name, preset.steps) == (name, steps)


@pytest.mark.parametrize(
    ("file", "name", "steps"),
    [
        ("sdxl_lightning_2step_lora", "lightning", 2),
        ("Hyper-SD15-4steps-lora", "hyper", 4),
        ("lcm-lora-sdv1-5", "lcm", 4),
        ("LCM_LoRA_Weights_SD15", "lcm", 4),
        ("TCD-SDXL-LoRA", "tcd", 4),
        ("dmd2_sdxl_4step_lora_fp16", "dmd2", 4),
        ("sdxl_turbo_lora_v1", "turbo", 4),
    ],
)
def test_loras_are_recognised(file: str, name: str, steps: int) -> None:
    preset = preset_in(file, lora=True)
    assert preset is not None and (preset.name, preset.steps) == (name, steps)


@pytest.mark.parametrize("file", ["lightning_strikes", "Turbo Car XL", "hyper_detail", "thunder and lightning v2"])
def test_loras_named_after_things_are_left_alone(file: str) -> None:
    assert preset_in(file, lora=True) is None


@pytest.mark.parametrize(
    "file",
    [
        "demo",
        "v1-5-pruned",
        "hyper_realism_v2",
        "hyperrealistic",
        "alcmist",
        "sdxl_lightning_1step_x0",
        "dmd2_sdxl_1step_unet",
        "xtcdx",
    ],
)
def test_other_checkpoints_are_left_alone(file: str) -> None:
    assert preset_in(file, lora=False) is None


def test_hyper_models_that_were_trained_with_guidance_keep_it() -> None:
    preset = preset_in("Hyper-SDXL-12steps-CFG-lora", lora=True)
    assert preset is not None and "cfg" not in preset.settings
    assert preset.differences("ddim", "sgm_uniform", 12, 7.0) == {}
    assert preset.differences("ddim", "sgm_uniform", 8, 7.0) == {"steps": 12}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fits_its_own_settings_and_is_a_possible_request(name: str) -> None:
    preset = PRESETS[name]
    assert preset.differences(**{"cfg": LOW_CFG} | preset.settings) == {}
    GenerationOptions(prompt="x", **preset.settings)


def test_the_defaults_fit_no_preset() -> None:
    usual = {key: default_of(key) for key in ("sampler", "scheduler", "steps", "cfg")}
    for preset in PRESETS.values():
        assert preset.differences(**usual) == preset.settings


def test_near_settings_fit_but_a_counted_model_wants_its_own_steps() -> None:
    assert PRESETS["lcm"].differences("LCM", "simple", 6, 1.5) == {}
    lightning = preset_in("sdxl_lightning_8step", lora=False)
    assert lightning is not None
    assert lightning.differences("Euler", "SGM Uniform", 4, 1.0) == {"steps": 8}
