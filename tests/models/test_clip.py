"""Text encoders against transformers' CLIPTextModel with the same random weights, including clip skip and SD2's cut."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from torch import Tensor, nn

from modules.loader.layouts.diffusers import text_to_openclip
from modules.loader.load_weights import empty_weights, fill_network
from modules.models.clip import build_text_model
from modules.models.configs import CLIP_L, OPENCLIP_H, SDXL_CLIP_G, TextConfig
from tests import tiny
from tests.models.oracles import random_ids, relative_error, transformers_text


def our_text_model(oracle: nn.Module, config: TextConfig) -> nn.Module:
    state = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in oracle.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if "position_ids" not in name}
    with empty_weights():
        ours = build_text_model(config)
    state = text_to_openclip(state) if config.layout == "openclip" else state
    fill_network(ours, state, torch.device("cpu"), torch.float32, lambda: None, "text encoder")
    return ours


def text_error(config: TextConfig, skip: int) -> float:
    """Returns the error of the states `skip` layers before the last, after the final norm."""
    oracle = tiny.randomise(transformers_text(config))
    ours = our_text_model(oracle, config)
    ids = random_ids(2)
    norm = dict(oracle.named_modules())[_norm_name(oracle)]
    with torch.inference_mode():
        states = oracle(ids, output_hidden_states=True).hidden_states
        return relative_error(ours(ours.embed_tokens(ids), skip), norm(states[-1 - skip]))


def _norm_name(oracle: nn.Module) -> str:
    return next(name for name, _ in oracle.named_modules() if name.endswith("final_layer_norm"))


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_equals_transformers(skip: int) -> None:
    assert text_error(tiny.SD1_TEXT, skip) < 1e-4


@pytest.mark.parametrize("skip", [0, 1])
def test_openclip_equals_transformers(skip: int) -> None:
    assert text_error(tiny.SD2_TEXT, skip) < 1e-4


def test_clip_last_state_is_transformers_output() -> None:
    oracle = tiny.randomise(transformers_text(tiny.SD1_TEXT))
    ours = our_text_model(oracle, tiny.SD1_TEXT)
    ids = random_ids(1)
    with torch.inference_mode():
        assert relative_error(ours(ours.embed_tokens(ids)), oracle(ids).last_hidden_state) < 1e-4


def both_outputs(config: TextConfig, skip: int, ends: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Our states and pooled output, then transformers'; the texts end at the positions `ends`, then padding follows."""
    oracle = tiny.randomise(transformers_text(config))
    ours = our_text_model(oracle, config)
    ids = random_ids(len(ends))
    for row, end in enumerate(ends):
        ids[row, end], ids[row, end + 1 :] = 49407, config.pad_token
    with torch.inference_mode():
        states, pooled = ours(ours.embed_tokens(ids), skip, torch.tensor(ends))
        theirs = oracle(ids, output_hidden_states=True)
    return states, pooled, theirs.hidden_states[-1 - skip], theirs.text_embeds


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_g_gives_states_without_norm_and_the_pooled_output_of_its_last_layer(skip: int) -> None:
    states, pooled, their_states, their_pooled = both_outputs(tiny.SDXL_TEXTS[1], skip, [3, 40, 76])
    assert relative_error(states, their_states) < 1e-4
    assert relative_error(pooled, their_pooled) < 1e-4


def test_sdxls_clip_l_gives_states_without_norm() -> None:
    config = tiny.SDXL_TEXTS[0]
    oracle = tiny.randomise(transformers_text(config))
    ours, ids = our_text_model(oracle, config), random_ids(2)
    with torch.inference_mode():
        expected = oracle(ids, output_hidden_states=True).hidden_states[-2]
        assert relative_error(ours(ours.embed_tokens(ids), config.skip), expected) < 1e-4


@pytest.mark.slow
def test_full_clip_g_equals_transformers() -> None:
    states, pooled, their_states, their_pooled = both_outputs(SDXL_CLIP_G, 1, [9])
    assert max(relative_error(states, their_states), relative_error(pooled, their_pooled)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("config", [CLIP_L, OPENCLIP_H], ids=["clip-l", "openclip-h"])
def test_full_text_encoder_equals_transformers(config: TextConfig, skip: int) -> None:
    assert text_error(config, skip) < 1e-4


def test_diffusers_reads_our_openclip_names_as_we_do() -> None:
    """diffusers' converter omits the encoder's last layer, so its output is SD2's penultimate state."""
    config = tiny.SD2_TEXT
    ours = tiny.text_model(config)
    file = {f"cond_stage_model.model.{name}": tensor for name, tensor in ours.state_dict().items()}
    file["cond_stage_model.model.text_projection"] = torch.zeros(config.width, config.width)
    oracle = transformers_text(config, layers=config.layers - 1)
    converted = convert_open_clip_checkpoint(oracle, file, prefix="cond_stage_model.model.")
    names = oracle.state_dict().keys()
    state = {name: converted[name if name in converted else f"text_model.{name}"] for name in names}
    oracle.load_state_dict(state, strict=True)
    ids = random_ids(2)
    with torch.inference_mode():
        expected = oracle(ids).last_hidden_state
        assert relative_error(ours(ours.embed_tokens(ids), config.skip), expected) < 1e-4
