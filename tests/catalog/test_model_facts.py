"""What a header tells of a model: checked against the trainers' spellings and the loader's own detection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modules.catalog.headers import header_metadata
from modules.catalog.model_facts import MOST_TAGS, model_facts, stated_family, trigger_words
from modules.core.families import CONTEXT_FAMILIES
from tests.catalog.header_files import save_header
from tests.loader.detection.detecting import detect
from tests.tiny import checkpoint_tensors, save_checkpoint

UNET = "model.diffusion_model."
CONTEXT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("sd_v1", "SD1.x"),
        ("sd_1.5", "SD1.x"),
        ("SD 1.5", "SD1.x"),
        ("stable-diffusion-v1/lora", "SD1.x"),
        ("sd_v2_v", "SD2.x"),
        ("SD 2.1 768", "SD2.x"),
        ("stable-diffusion-v2-768-v", "SD2.x"),
        ("sdxl_base_v1-0", "SDXL"),
        ("stable-diffusion-xl-v1-base/lora", "SDXL"),
        ("Pony", "SDXL"),
        ("stable-diffusion-xl-v1-refiner", "the SDXL refiner"),
        ("flux-1-dev/lora", "Flux"),
        ("stable-diffusion-3-medium", "SD3"),
        ("Wan 2.1", "Wan 2.1"),
        ("Unknown", ""),
        ("x\ny" * 90, "x yx yx yx yx yx yx yx yx yx yx yx yx yx y"[:40]),
    ],
)
def test_families_are_known_in_every_programs_spelling(text: str, family: str) -> None:
    assert stated_family(text) == family
    assert stated_family(None, 7, " ", text) == family


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight",
        "base_model.model.down_blocks.0.attn2.to_k.lora_A.default.weight",
        "unet.down_blocks.0.attn2.processor.to_k_lora.down.weight",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.hada_w1_b",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
    ],
)
@pytest.mark.parametrize(("width", "family"), [*CONTEXT_FAMILIES.items(), (96, "")])
def test_a_lora_is_known_by_the_width_of_its_text(tmp_path: Path, name: str, width: int, family: str) -> None:
    up = name.replace("down", "up").replace("lora_A", "lora_B").replace("w1_b", "w1_a")
    facts = model_facts(save_header(tmp_path / "x.safetensors", shapes={up: [320, 4], name: [4, width]}), "loras")
    assert (facts.width, facts.family) == (width, family)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "SDXL"),
        ("lora_unet_double_blocks_0_img_attn_proj.alpha", "Flux"),
        ("lora_unet_joint_blocks_0_context_block_mlp_fc1.alpha", "SD3"),
    ],
)
def test_a_lora_is_known_by_names_of_one_family(tmp_path: Path, name: str, family: str) -> None:
    assert model_facts(save_header(tmp_path / "x.safetensors", shapes={name: []}), "loras").family == family


@pytest.mark.parametrize(
    ("shapes", "width", "family"),
    [
        ({"emb_params": [4, 768]}, 768, "SD1.x"),
        ({"emb_params": [1024]}, 1024, "SD2.x"),
        ({"clip_l": [2, 768], "clip_g": [2, 1280]}, 2048, "SDXL"),
        ({"a": [1, 7], "b": [1, 7], "c": [1, 7]}, None, ""),
    ],
)
def test_an_embedding_is_known_by_its_width(
    tmp_path: Path, shapes: dict[str, list[int]], width: int | None, family: str
) -> None:
    facts = model_facts(save_header(tmp_path / "x.safetensors", shapes=shapes), "embeddings")
    assert (facts.width, facts.family) == (width, family)


@pytest.mark.parametrize("sdxl", [False, True])
def test_a_header_tells_what_the_loader_finds_in_the_weights(tmp_path: Path, *, sdxl: bool) -> None:
    path = save_checkpoint(tmp_path / "x.safetensors", sdxl=sdxl)
    spec, facts = detect(checkpoint_tensors(sdxl=sdxl), header_metadata(path)), model_facts(path, "checkpoints")
    assert (facts.family, facts.width, facts.details) == (spec.family, spec.unet.context_dim, ())


@pytest.mark.parametrize(
    ("metadata", "shapes", "details"),
    [
        ({}, {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3]}, ()),
        ({}, {f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}, ("inpainting (9 channels)",)),
        ({"modelspec.prediction_type": "v"}, {"ztsnr": []}, ("v-prediction", "zero terminal SNR")),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, {}, ("v-prediction",)),
        ({"lightdiffusion": json.dumps({"prediction_type": "v_prediction"})}, {}, ("v-prediction",)),
        ({}, {"v_pred": []}, ("v-prediction",)),
        ({}, {"edm_vpred.sigma_max": []}, ("EDM v-prediction",)),
        ({}, {"edm_mean": [1, 4, 1, 1]}, ("EDM",)),
        ({"modelspec.prediction_type": "<b>"}, {}, ()),
    ],
)
def test_a_checkpoints_details(
    tmp_path: Path, metadata: dict[str, str], shapes: dict[str, list[int]], details: tuple[str, ...]
) -> None:
    path = save_header(tmp_path / "x.safetensors", metadata, {CONTEXT: [320, 768], **shapes})
    assert model_facts(path, "checkpoints").details == details


def test_a_diffusers_folder_is_known_by_its_configs(tmp_path: Path) -> None:
    for name, config in (
        ("unet/config.json", {"cross_attention_dim": 1024, "in_channels": 9}),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(config))
    facts = model_facts(tmp_path, "checkpoints")
    assert (facts.family, facts.width) == ("SD2.x", 1024)
    assert facts.details == ("v-prediction", "inpainting (9 channels)")


def test_the_phrase_comes_before_the_most_frequent_tags() -> None:
    tags = {"10_cat": {f"tag {count}": count for count in range(1, 20)}, "2_dog": {"tag 1": 50, "bad": "7"}, "x": 3}
    metadata: dict[str, Any] = {"ss_tag_frequency": json.dumps(tags)}
    assert trigger_words(metadata)[:3] == ("tag 1", "tag 19", "tag 18")
    assert len(trigger_words(metadata)) == MOST_TAGS
    assert trigger_words({**metadata, "modelspec.trigger_phrase": "my\ncat, "}) == ("my cat",)


@pytest.mark.parametrize("text", [7, "{", "[]", '{"a": {"b": NaN}}', '{"a": [1]}', '{"a": {"b": -1}}', "{}"])
def test_damaged_tags_are_none(text: object) -> None:
    assert trigger_words({"ss_tag_frequency": text, "modelspec.trigger_phrase": 7}) == ()
