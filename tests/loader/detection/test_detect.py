"""Detection by keys and shapes: SD's own sizes, variants, v-prediction, and refusals that name other file kinds."""

from __future__ import annotations

import dataclasses
import json

import pytest
from torch import Tensor, nn

from modules.core.errors import ModelFileError
from modules.loader.detection.foreign import SUPPORTED
from modules.loader.load_weights import empty_weights
from modules.models.clip import build_text_model
from modules.models.configs import CLIP_L, OPENCLIP_H, SD15_UNET, SD21_UNET, SD_VAE, TextConfig, UNetConfig
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL
from tests import tiny
from tests.loader.detection.detecting import detect


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def full_size(unet: UNetConfig, text: TextConfig) -> dict[str, Tensor]:
    """Makes a real-size checkpoint that takes no memory."""
    text_prefix = "cond_stage_model.model." if text.layout == "openclip" else "cond_stage_model.transformer."
    with empty_weights():
        return (
            prefixed("model.diffusion_model.", UNet(unet))
            | prefixed("first_stage_model.", AutoencoderKL(SD_VAE))
            | prefixed(text_prefix, build_text_model(text))
        )


def refusal(state: dict[str, Tensor] | dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(ModelFileError) as caught:
        detect(state, {})
    return str(caught.value)


def test_sd15_constants_come_out_of_the_shapes() -> None:
    spec = detect(full_size(SD15_UNET, CLIP_L), {})
    assert (spec.unet, spec.vae, spec.texts[0]) == (SD15_UNET, SD_VAE, CLIP_L)
    assert (spec.family, spec.prediction, spec.native_size, spec.inpaint) == ("SD1.x", "epsilon", 512, False)
    assert spec.zero_terminal_snr is False


def test_sd21_constants_come_out_of_the_shapes() -> None:
    spec = detect(full_size(SD21_UNET, OPENCLIP_H), {})
    assert (spec.unet, spec.vae, spec.texts[0]) == (SD21_UNET, SD_VAE, OPENCLIP_H)
    assert (spec.family, spec.prediction, spec.native_size) == ("SD2.x", "epsilon", 512)


def test_plain_shapes_do_as_well_as_tensors() -> None:
    state = full_size(SD21_UNET, OPENCLIP_H)
    assert detect({name: tuple(tensor.shape) for name, tensor in state.items()}, {}) == detect(state, {})


@pytest.mark.parametrize(("unet", "text"), [(SD15_UNET, CLIP_L), (SD21_UNET, OPENCLIP_H)], ids=["sd1", "sd2"])
def test_inpainting(unet: UNetConfig, text: TextConfig) -> None:
    spec = detect(full_size(dataclasses.replace(unet, in_channels=9), text), {})
    assert spec.inpaint and spec.unet.in_channels == 9 and spec.prediction == "epsilon"


def test_any_width_by_the_rules() -> None:
    config = UNetConfig(channels=(64, 96, 128, 128), context_dim=128, heads=2, groups=16)
    text = TextConfig(width=128, layers=4, heads=2, mlp_width=512)
    spec = detect(full_size(config, text), {})
    assert (spec.unet, spec.texts[0]) == (config, text)
    assert spec.vae == SD_VAE


def test_tiny_checkpoints() -> None:
    sd1 = detect(tiny.checkpoint_tensors(), {})
    assert (sd1.unet, sd1.vae, sd1.texts) == (tiny.SD1_SHORT_UNET, tiny.VAE, (tiny.SD1_TEXT,))
    sd2 = detect(tiny.checkpoint_tensors(sd2=True), {})
    assert (sd2.unet, sd2.vae, sd2.texts) == (tiny.SD2_UNET, tiny.VAE, (tiny.SD2_TEXT,))


@pytest.mark.parametrize("key", ["sd_tiny", "lightdiffusion"])
def test_header_overrides_the_rules(key: str) -> None:
    facts = {
        "unet_heads": 4,
        "unet_groups": 8,
        "vae_groups": 2,
        "clip_heads": 16,
        "image_size": 128,
        "prediction_type": "v_prediction",
    }
    spec = detect(tiny.checkpoint_tensors(), {key: json.dumps(facts)})
    assert (spec.unet.heads, spec.unet.groups, spec.vae.groups, spec.texts[0].heads) == (4, 8, 2, 16)
    assert (spec.native_size, spec.prediction) == (128, "v")
    assert detect(tiny.checkpoint_tensors(), {key: json.dumps(facts | {"native_size": 192})}).native_size == 192


def test_damaged_header_text_and_unknown_prediction() -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        detect(tiny.checkpoint_tensors(), {"lightdiffusion": "{"})
    with pytest.raises(ModelFileError, match="sample"):
        detect(tiny.checkpoint_tensors(), {"lightdiffusion": '{"prediction_type": "sample"}'})


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("a LoRA", "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", (4, 320, 1, 1)),
        ("a LoRA", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", (4, 320)),
        ("a LoRA", "unet.down_blocks.0.attentions.0.attn1.processor.to_q_lora.up.weight", (4, 320)),
        ("a LoRA (LyCORIS)", "lycoris_x.hada_w1_a", (4, 4)),
        ("a ControlNet", "control_model.input_blocks.0.0.weight", (320, 4, 3, 3)),
        ("a ControlNet", "controlnet_cond_embedding.conv_in.weight", (16, 3, 3, 3)),
        ("a T2I-Adapter", "adapter.body.0.block1.weight", (320, 64, 3, 3)),
        ("a text encoder", "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight", (768,)),
        ("an SD3 checkpoint", "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", (4608, 1536)),
        ("a Flux checkpoint", "double_blocks.0.img_attn.qkv.weight", (9216, 3072)),
        ("a Flux checkpoint", "model.diffusion_model.double_blocks.0.img_attn.qkv.weight", (9216, 3072)),
        ("a textual inversion embedding", "emb_params", (3, 768)),
        ("a textual inversion embedding", "string_to_param.*", (3, 768)),
        ("a textual inversion embedding", "<cat-toy>", (768,)),
        ("an upscaler", "model.1.sub.0.RDB1.conv1.0.weight", (32, 64, 3, 3)),
        ("an upscaler", "params_ema.conv_first.weight", (64, 3, 3, 3)),
        ("a VAE", "decoder.conv_in.weight", (512, 4, 3, 3)),
        ("a VAE", "first_stage_model.decoder.conv_in.weight", (512, 4, 3, 3)),
        ("a text encoder", "text_model.final_layer_norm.weight", (768,)),
        ("motion module", "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", (320,)),
    ],
)
def test_foreign_files_are_refused_by_name(kind: str, name: str, shape: tuple[int, ...]) -> None:
    text = refusal({name: shape})
    assert kind in text and SUPPORTED in text


def test_foreign_marks_do_not_touch_real_checkpoints() -> None:
    for state in (full_size(SD15_UNET, CLIP_L), full_size(SD21_UNET, OPENCLIP_H)):
        detect(state, {})


@pytest.mark.parametrize(
    ("channels", "words"), [(5, "depth"), (7, "upscaler"), (8, "Pix2Pix"), (12, "12 input channels")]
)
def test_other_input_channels_are_refused_by_name(channels: int, words: str) -> None:
    state = full_size(dataclasses.replace(SD15_UNET, in_channels=channels), CLIP_L)
    assert words in refusal(state)


def test_unknown_file_names_its_first_key() -> None:
    text = refusal({"zebra.weight": (3,), "aardvark.weight": (3, 3)})
    assert "aardvark.weight" in text and SUPPORTED in text
    assert "no weights" in refusal({})


@pytest.mark.parametrize(
    ("prefix", "words"), [("cond_stage_model.", "no text encoder"), ("first_stage_model.", "no VAE")]
)
def test_missing_networks_are_named(prefix: str, words: str) -> None:
    state = {name: tensor for name, tensor in full_size(SD15_UNET, CLIP_L).items() if not name.startswith(prefix)}
    assert words in refusal(state)


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.out.2.weight",
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
        "first_stage_model.post_quant_conv.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    ],
)
def test_missing_keys_detection_needs_are_named(name: str) -> None:
    state = full_size(SD15_UNET, CLIP_L)
    del state[name]
    assert name.split(".", 2)[2] in refusal(state) or name.split(".", 1)[1] in refusal(state)


def test_a_unet_that_reads_no_text_is_refused() -> None:
    state = {name: tensor for name, tensor in full_size(SD15_UNET, CLIP_L).items() if ".attn2.to_k." not in name}
    assert "The UNet lacks middle_block.1.transformer_blocks.0.attn2.to_k.weight" in refusal(state)
