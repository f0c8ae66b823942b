"""LoRAs for SDXL: layer names of both text encoders and of deep transformers, and families refused both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.patcher import ModelPatcher
from modules.lora.apply import add_lora, lora_patches
from tests import tiny
from tests.lora.builders import copies, lora, relative_error, save, spec

CLIP_L = replace(tiny.SD1_TEXT, width=32, mlp_width=64, vocab_size=100, skip=1, final_norm=False)
CLIP_G = replace(
    tiny.SD2_TEXT, name="clip_g", width=64, heads=1, mlp_width=96, vocab_size=100, final_norm=False, projection=32
)
SPEC = replace(spec(), unet=tiny.SDXL_UNET, texts=(CLIP_L, CLIP_G), family="SDXL", native_size=1024)

# The layer's name in the file, its size, and the part of our parameter that it changes.
LAYERS: list[tuple[str, int, int, str, slice]] = [
    ("lora_unet_input_blocks_7_1_transformer_blocks_1_attn2_to_k", 64, 96, "unet", slice(None)),
    ("lora_unet_down_blocks_2_attentions_0_transformer_blocks_1_attn2_to_k", 64, 96, "unet", slice(None)),
    ("unet.down_blocks.2.attentions.0.transformer_blocks.1.attn2.to_k", 64, 96, "unet", slice(None)),
    ("lora_te1_text_model_encoder_layers_1_mlp_fc1", 64, 32, "te1", slice(None)),
    ("text_encoder.text_model.encoder.layers.1.mlp.fc1", 64, 32, "te1", slice(None)),
    ("lora_te2_text_model_encoder_layers_1_mlp_fc1", 96, 64, "te2", slice(None)),
    ("text_encoder_2.text_model.encoder.layers.1.self_attn.k_proj", 64, 64, "te2 packed", slice(64, 128)),
    ("text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1", 96, 64, "te2", slice(None)),
    ("lora_unet_add_embedding_linear_1", 128, 80, "vector", slice(None)),
    ("lora_unet_label_emb_0_0", 128, 80, "vector", slice(None)),
]
PARAMETERS = {
    "unet": "input_blocks.7.1.transformer_blocks.1.attn2.to_k.weight",
    "te1": "clip_l.text_model.encoder.layers.1.mlp.fc1.weight",
    "te2": "clip_g.transformer.resblocks.1.mlp.c_fc.weight",
    "te2 packed": "clip_g.transformer.resblocks.1.attn.in_proj_weight",
    "vector": "label_emb.0.0.weight",
}


@pytest.fixture(scope="module")
def models() -> tuple[ModelPatcher, ModelPatcher]:
    return ModelPatcher(tiny.unet(tiny.SDXL_UNET), "cpu"), ModelPatcher(tiny.text_encoders([CLIP_L, CLIP_G]), "cpu")


@pytest.mark.parametrize(("name", "rows", "columns", "place", "part"), LAYERS, ids=[layer[0] for layer in LAYERS])
def test_a_layer_lands_where_its_name_says(
    name: str,
    rows: int,
    columns: int,
    place: str,
    part: slice,
    models: tuple[ModelPatcher, ModelPatcher],
    tmp_path: Path,
) -> None:
    tensors = lora(name, rows, columns)
    unet, text = (model.clone() for model in models)
    before = copies(unet.module) | copies(text.module)
    patches = lora_patches(save(tmp_path / "a.safetensors", tensors), unet, text, SPEC)
    add_lora(patches, unet, text, strength=1, text_strength=1)
    for model in (unet, text):
        model.apply()
    after = copies(unet.module) | copies(text.module)
    expected = dict(before)
    change = 0.5 * tensors[f"{name}.lora_up.weight"].double() @ tensors[f"{name}.lora_down.weight"].double()
    parameter = before[PARAMETERS[place]].double()
    parameter[part] += change
    expected[PARAMETERS[place]] = parameter
    assert patches.unmatched == []
    assert all(relative_error(after[key], value) < 1e-6 for key, value in expected.items())
    for model in models:
        model.apply()
    assert all(torch.equal(value, before[key]) for key, value in (copies(unet.module) | copies(text.module)).items())


@pytest.mark.parametrize(
    ("tensors", "model_spec", "theirs", "ours"),
    [
        (lora("lora_unet_input_blocks_7_1_transformer_blocks_0_attn2_to_k", 64, 768), SPEC, "SD1.x", "SDXL"),
        (lora("lora_te2_text_model_encoder_layers_0_mlp_fc1", 5120, 1280), spec(), "SDXL", "SD1.x"),
        (lora("unet.add_embedding.linear_1", 1280, 2816), spec(sd2=True), "SDXL", "SD2.x"),
    ],
    ids=["SD1 on SDXL", "SDXL on SD1", "SDXL on SD2"],
)
def test_another_family_is_named(
    tensors: dict[str, Tensor], model_spec: ModelSpec, theirs: str, ours: str, tmp_path: Path
) -> None:
    unet = ModelPatcher(tiny.unet(model_spec.unet), "cpu")
    text = ModelPatcher(tiny.text_encoders(model_spec.texts), "cpu")
    with pytest.raises(ModelFileError, match=rf"was made for {theirs}, this checkpoint is .*{ours}"):
        lora_patches(save(tmp_path / "other.safetensors", tensors), unet, text, model_spec)
