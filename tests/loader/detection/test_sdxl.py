"""SDXL, its inpainting model, SSD-1B, Vega and the refiner, recognised by names and shapes alone."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import lru_cache

import pytest
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.model_spec import refuse_refiner
from modules.loader.load_weights import empty_weights
from modules.models.clip import build_text_model
from modules.models.configs import (
    SDXL_CLIP_G,
    SDXL_CLIP_L,
    SDXL_REFINER_UNET,
    SDXL_UNET,
    SDXL_VAE,
    SSD_1B_UNET,
    VEGA_UNET,
    UNetConfig,
)
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL
from tests import tiny
from tests.loader.detection.detecting import detect

CLIP_L_PREFIX, CLIP_G_PREFIX = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER_PREFIX = "conditioner.embedders.0.model."
FULL = {
    "base": SDXL_UNET,
    "inpaint": replace(SDXL_UNET, in_channels=9),
    "SSD-1B": SSD_1B_UNET,
    "Vega": VEGA_UNET,
}


def full_unet(config: UNetConfig) -> dict[str, Tensor]:
    with empty_weights():
        return {f"model.diffusion_model.{name}": tensor for name, tensor in UNet(config).state_dict().items()}


@lru_cache(maxsize=1)
def other_networks() -> dict[str, Tensor]:
    """The autoencoder and both text encoders in their real size; they take no memory."""
    with empty_weights():
        networks = {
            "first_stage_model.": AutoencoderKL(SDXL_VAE),
            CLIP_L_PREFIX: build_text_model(SDXL_CLIP_L),
            CLIP_G_PREFIX: build_text_model(SDXL_CLIP_G),
        }
    return {prefix + name: weight for prefix, net in networks.items() for name, weight in net.state_dict().items()}


@pytest.mark.parametrize("kind", FULL)
def test_constants_come_out_of_the_shapes_at_once(kind: str) -> None:
    state = full_unet(FULL[kind]) | other_networks()
    began = time.perf_counter()
    spec = detect(state, {})
    assert time.perf_counter() - began < 2
    assert (spec.unet, spec.vae, spec.texts) == (FULL[kind], SDXL_VAE, (SDXL_CLIP_L, SDXL_CLIP_G))
    assert (spec.family, spec.prediction, spec.native_size) == ("SDXL", "epsilon", 1024)
    assert spec.inpaint == (kind == "inpaint")
    refuse_refiner(spec)


def test_the_refiner_is_known_and_refused_as_a_base() -> None:
    others = {
        name.replace(CLIP_G_PREFIX, REFINER_PREFIX): weight
        for name, weight in other_networks().items()
        if not name.startswith(CLIP_L_PREFIX)
    }
    spec = detect(full_unet(SDXL_REFINER_UNET) | others, {})
    assert (spec.unet, spec.texts, spec.family) == (SDXL_REFINER_UNET, (SDXL_CLIP_G,), "the SDXL refiner")
    assert (spec.vae, spec.native_size) == (SDXL_VAE, 1024)
    with pytest.raises(ModelFileError, match="refiner, which cannot start a picture; choose an SDXL checkpoint"):
        refuse_refiner(spec)


def test_the_tiny_checkpoint() -> None:
    spec = detect(tiny.checkpoint_tensors(sdxl=True), {})
    assert (spec.unet, spec.texts, spec.family) == (tiny.SDXL_UNET, tiny.SDXL_TEXTS, "SDXL")
    assert spec.vae == replace(tiny.VAE, scale_factor=SDXL_VAE.scale_factor)


def test_each_encoder_has_facts_of_its_own() -> None:
    facts = {"clip_heads": 2, "clip_activation": "gelu", "clip_g_heads": 4, "clip_g_activation": "quick_gelu"}
    clip_l, clip_g = detect(tiny.checkpoint_tensors(sdxl=True), {"lightdiffusion": json.dumps(facts)}).texts
    assert (clip_l.heads, clip_l.activation, clip_g.heads, clip_g.activation) == (2, "gelu", 4, "quick_gelu")


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (
            (CLIP_L_PREFIX, CLIP_G_PREFIX),
            r"no CLIP-L or CLIP-G \(SDXL needs two text.*--text-encoder NAME --text",
        ),
        ((CLIP_L_PREFIX,), r"has no CLIP-L \(SDXL needs two text encoders\)\. .*--text-encoder"),
        ((CLIP_G_PREFIX,), r"has no CLIP-G \(SDXL needs two text encoders\)\. .*--text-encoder"),
        ((CLIP_L_PREFIX, CLIP_G_PREFIX, "first_stage_model."), "UNet alone.*CLIP-L.*CLIP-G.*VAE.*--vae"),
    ],
)
def test_missing_networks_are_named(gone: tuple[str, ...], words: str) -> None:
    state = full_unet(SDXL_UNET) | other_networks()
    with pytest.raises(ModelFileError, match=words):
        detect({name: weight for name, weight in state.items() if not name.startswith(gone)}, {})


@pytest.mark.parametrize("gone", [CLIP_G_PREFIX, "label_emb.0.0.", "first_stage_model."])
def test_a_unet_without_the_layers_for_sizes_is_incomplete(gone: str) -> None:
    """SDXL is known by its width, its text encoders or its other layers, so nothing is said of its text encoders."""
    state = full_unet(SDXL_UNET) | other_networks()
    left = {name: tensor for name, tensor in state.items() if "label_emb.0.0.weight" not in name and gone not in name}
    with pytest.raises(ModelFileError, match="SDXL checkpoint whose UNet lacks label_emb.0.0.weight") as raised:
        detect(left, {})
    assert "no text encoder" not in str(raised.value)


def test_encoders_of_another_width_do_not_fit() -> None:
    state = full_unet(replace(SDXL_UNET, context_dim=1024)) | other_networks()
    with pytest.raises(ModelFileError, match="text encoders give vectors of width 2048, but this UNet reads 1024"):
        detect(state, {})


@pytest.mark.parametrize(("length", "words"), [(3, "read texts of 3 and 77 tokens"), (2, "has 2 positions")])
def test_encoders_whose_texts_have_another_length_are_refused(length: int, words: str) -> None:
    tensors = tiny.checkpoint_tensors(sdxl=True)
    name = f"{CLIP_L_PREFIX}text_model.embeddings.position_embedding.weight"
    with pytest.raises(ModelFileError, match=words):
        detect(tensors | {name: tensors[name][:length]}, {})
