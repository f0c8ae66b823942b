"""The shipped XL demo and its LoRA: read as SDXL, drawn as asked, with sizes and crops that are seen in pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions, LoraChoice
from modules.generation.session import Session
from modules.loader.checkpoint import LoadedModel
from modules.lora.apply import lora_patches
from tools.demo_model.evaluate_extras import style_distance
from tools.demo_model.evaluate_xl import CHECKPOINT, CROPS, LEAST_MOVE, MOST_SHARPNESS, SMALL_ORIGINAL
from tools.demo_model.extras_xl import NAME, STYLE
from tools.demo_model.judging.app import App
from tools.demo_model.judging.measure import read_picture, sharpness
from tools.demo_model.training.xl.export import LIMIT_BYTES
from tools.demo_model.training.xl.networks import CLIP_G, CLIP_L, UNET

STAR = "a yellow star on a purple background", 1


@pytest.fixture(scope="module")
def session(demo_checkpoint: Path) -> Session:
    return Session(ModelFolders(demo_checkpoint.parents[2]), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def app(session: Session) -> App:
    return App(session, CHECKPOINT)


@pytest.fixture(scope="module")
def model(session: Session) -> LoadedModel:
    return session.model(GenerationOptions(prompt="", checkpoint=CHECKPOINT))


def test_it_is_a_small_sdxl_with_two_text_encoders_and_a_vector(session: Session, model: LoadedModel) -> None:
    assert model.spec.family == "SDXL" and model.spec.native_size == 128
    assert model.spec.unet == UNET and model.spec.texts == (CLIP_L, CLIP_G)
    assert session.folders.find("checkpoints", CHECKPOINT).stat().st_size <= LIMIT_BYTES


def test_a_picture_follows_prompt_crop_and_original_size(app: App) -> None:
    """Takes half the steps of the published judgements, so half the time."""
    draw = partial(app.pixels, *STAR, steps=10)
    picture = draw()
    reading = read_picture(picture)
    assert picture.shape == (128, 128, 3), "the native size is the default"
    assert [(item.colour, item.shape) for item in reading.objects] == [("yellow", "star")]
    assert reading.background == "purple"
    first, second = (read_picture(draw(crop=crop)).objects[0] for crop in CROPS)
    assert first.x - second.x > LEAST_MOVE
    assert sharpness(draw(original_size=SMALL_ORIGINAL)) < MOST_SHARPNESS * sharpness(picture)


def test_every_key_of_the_lora_lands_in_unet_or_one_of_two_text_encoders(session: Session, model: LoadedModel) -> None:
    path = session.folders.find("loras", NAME)
    layers = {name.partition(".")[0] for name in load_file(path)}
    assert {layer.split("_")[1] for layer in layers} == {"unet", "te1", "te2"}
    patches = lora_patches(path, model.unet, model.text, model.spec)
    assert len(patches.unet) + len(patches.text) == len(layers) and patches.unmatched == []


def test_the_lora_redraws_in_ink(app: App) -> None:
    plain, inked = (app.image(*STAR, steps=10, loras=loras) for loras in ((), (LoraChoice(name=NAME),)))
    assert style_distance(STYLE, plain, inked) < 0.5 * style_distance(STYLE, plain, plain)
