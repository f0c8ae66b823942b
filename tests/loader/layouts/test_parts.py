"""EMA names, prefixes and layouts: every way in which a file may name the same weights."""

from __future__ import annotations

import pytest
import torch

from modules.loader.layouts.parts import Parts, ema_to_ldm, split_parts
from modules.loader.load_weights import empty_weights
from modules.models.configs import SD15_UNET, SD21_UNET, SDXL_UNET, SSD_1B_UNET, UNetConfig
from modules.models.unet import UNet
from tests import tiny


def names_of(parts: Parts) -> dict[str, set[str]]:
    """Returns the names of each text encoder's weights."""
    return {name: set(weights) for name, weights in parts.texts.items()}


@pytest.mark.parametrize("config", [SD15_UNET, SD21_UNET, SDXL_UNET, SSD_1B_UNET], ids=["sd1", "sd2", "sdxl", "ssd-1b"])
def test_every_ema_name_gets_its_dots_back(config: UNetConfig) -> None:
    with empty_weights():
        names = list(UNet(config).state_dict())
    assert len({name.replace(".", "") for name in names}) == len(names)
    assert [ema_to_ldm(name.replace(".", "")) for name in names] == names


def test_unknown_ema_names_stay_as_they_are() -> None:
    assert ema_to_ldm("something_else7weight") == "something_else7weight"


def test_ema_only_file() -> None:
    state = tiny.checkpoint_tensors()
    unet = {name: tensor for name, tensor in state.items() if name.startswith("model.diffusion_model.")}
    rest = {name: tensor for name, tensor in state.items() if name not in unet}
    ema = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor for name, tensor in unet.items()}
    # The training code omits the dot after "diffusion_model".
    assert "model_ema.diffusion_modelinput_blocks00weight" in ema
    extras = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(1)}
    parts, expected = split_parts(rest | ema | extras), split_parts(state)
    assert parts.unet.keys() == expected.unet.keys()
    assert all(parts.unet[name] is expected.unet[name] for name in expected.unet)


def test_plain_weights_win_over_ema() -> None:
    state = tiny.checkpoint_tensors()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    ema = {"model_ema.diffusion_modelinput_blocks00weight": torch.zeros_like(state[name])}
    assert split_parts(state | ema).unet["input_blocks.0.0.weight"] is state[name]


def test_text_level_left_out_by_some_savers() -> None:
    state = tiny.checkpoint_tensors()
    short = {
        name.replace("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."): t
        for name, t in state.items()
    }
    assert short.keys() != state.keys()
    assert names_of(split_parts(short)) == names_of(split_parts(state))


def test_tensors_that_are_not_weights_are_left_out() -> None:
    state = tiny.checkpoint_tensors() | {
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.tensor(1.0),
        "first_stage_model.loss.perceptual_loss.net.weight": torch.zeros(1),
        "alphas_cumprod": torch.zeros(1000),
    }
    parts, expected = split_parts(state), split_parts(tiny.checkpoint_tensors())
    assert (parts.unet.keys(), parts.vae.keys(), names_of(parts)) == (
        expected.unet.keys(),
        expected.vae.keys(),
        names_of(expected),
    )


def test_sd2_leftovers_are_left_out() -> None:
    state = tiny.checkpoint_tensors(sd2=True) | {
        "cond_stage_model.model.text_projection": torch.zeros(1024, 1024),
        "cond_stage_model.model.logit_scale": torch.tensor(1.0),
        "cond_stage_model.model.attn_mask": torch.zeros(77, 77),
    }
    assert names_of(split_parts(state)) == names_of(split_parts(tiny.checkpoint_tensors(sd2=True)))


def test_sdxl_leftovers_are_left_out_but_for_the_projection_of_clip_g() -> None:
    state = tiny.checkpoint_tensors(sdxl=True)
    extras = {
        "conditioner.embedders.0.transformer.text_projection.weight": torch.zeros(32, 32),
        "conditioner.embedders.1.model.logit_scale": torch.tensor(1.0),
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    found = names_of(split_parts(state | extras))
    assert list(found) == ["clip_l", "clip_g"]
    assert found == names_of(split_parts(state))
    assert "text_projection" in found["clip_g"]
