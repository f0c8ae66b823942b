"""Offers for the few-step models of a request, and the settings that a preset fills in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.paths import KINDS, ModelFolders
from modules.generation.few_steps.offers import find_offer, offer_of, with_preset
from modules.generation.options import GenerationOptions, LoraChoice


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    for kind in KINDS:
        (tmp_path / "models" / kind).mkdir(parents=True)
    models = tmp_path / "models"
    for name in ("checkpoints/plain", "checkpoints/zoo_lightning_8step", "loras/TCD-SDXL-LoRA", "loras/ink"):
        save_file({"x": torch.zeros(1)}, models / f"{name}.safetensors")
    titled = {"modelspec.title": "Something LCM", "ss_output_name": "fast"}
    save_file({"x": torch.zeros(1)}, models / "loras" / "renamed.safetensors", metadata=titled)
    return ModelFolders(tmp_path)


def request(**changes: object) -> GenerationOptions:
    return GenerationOptions(prompt="x", **{"checkpoint": "zoo_lightning_8step", **changes})  # type: ignore[arg-type]


def test_one_sentence_names_the_file_the_reason_and_what_to_give(folders: ModelFolders) -> None:
    assert offer_of(request(), folders) == (
        '"zoo_lightning_8step" looks like a few-step model (Lightning), which was trained for a fixed number of '
        "steps and without guidance. Give --preset lightning, which here means --sampler euler --scheduler sgm_uniform "
        "--steps 8 --cfg 1."
    )
    near = request(sampler="euler", scheduler="simple", steps=8)
    assert str(offer_of(near, folders)).endswith("which here means --cfg 1.")


def test_nothing_is_offered_for_settings_that_fit_or_for_other_models(folders: ModelFolders) -> None:
    assert offer_of(request(sampler="euler", scheduler="sgm_uniform", steps=8, cfg=1.0), folders) is None
    assert offer_of(request(checkpoint="plain", loras=(LoraChoice(name="ink"),)), folders) is None


def test_a_lora_decides_before_the_checkpoint_unless_it_is_off(folders: ModelFolders) -> None:
    def name(**changes: object) -> str:
        return (offer_of(request(**changes), folders) or "").partition(" looks")[0]

    assert name(loras=(LoraChoice(name="ink"), LoraChoice(name="TCD-SDXL-LoRA"))) == '"TCD-SDXL-LoRA"'
    assert name(loras=(LoraChoice(name="TCD-SDXL-LoRA", strength=0.0),)) == '"zoo_lightning_8step"'
    tagged = GenerationOptions(prompt="x <lora:TCD-SDXL-LoRA:1>", checkpoint="plain")
    assert "--preset tcd" in (offer_of(tagged, folders) or "")


def test_a_renamed_file_is_recognised_by_its_title(folders: ModelFolders) -> None:
    offer = find_offer(folders, "plain", ["renamed"])
    assert offer is not None and (offer.file, offer.preset.name) == ("renamed", "lcm")
    assert offer.sentence.endswith("Settings that fit: LCM, SGM Uniform, 4 steps, CFG 1.")


def test_a_preset_fills_only_what_was_not_given(folders: ModelFolders) -> None:
    filled = with_preset(request(cfg=1.5), "lightning", {"cfg"}, folders)
    assert (filled.sampler, filled.scheduler, filled.steps, filled.cfg) == ("euler", "sgm_uniform", 8, 1.5)
    assert offer_of(filled, folders) is None


def test_a_preset_for_another_kind_of_file_has_its_usual_steps(folders: ModelFolders) -> None:
    filled = with_preset(request(), "lcm", set(), folders)
    assert (filled.sampler, filled.steps) == ("lcm", 4)


def test_a_label_that_names_a_scheduler_keeps_it(folders: ModelFolders) -> None:
    filled = with_preset(request(sampler="DPM++ SDE Karras"), "turbo", {"sampler"}, folders)
    assert (filled.sampler, filled.scheduler, filled.steps) == ("DPM++ SDE Karras", None, 4)
