"""Patches on a whole model: on, off, on again, several at once, other families, damaged files, unmatched keys."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.patcher import ModelPatcher
from modules.lora.apply import add_lora, lora_patches
from tests import tiny
from tests.lora.builders import ATTN1, ATTN2, copies, lora, patchers, random, relative_error, save, spec

UNET_WEIGHT = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
TEXT_WEIGHT = "clip_l.text_model.encoder.layers.1.mlp.fc1.weight"
TEXT_LAYER = "lora_te_text_model_encoder_layers_1_mlp_fc1"


@pytest.fixture(scope="module")
def models() -> tuple[ModelPatcher, ModelPatcher]:
    return patchers()


@pytest.fixture(scope="module")
def sd2_models() -> tuple[ModelPatcher, ModelPatcher]:
    return patchers(sd2=True)


def both_parts(seed: int = 0) -> dict[str, Tensor]:
    return lora(f"lora_unet_{ATTN1}_to_q", 64, 64, seed=seed) | lora(TEXT_LAYER, 128, 64, seed=seed + 10)


def clones(models: tuple[ModelPatcher, ModelPatcher]) -> tuple[ModelPatcher, ModelPatcher]:
    return models[0].clone(), models[1].clone()


def delta(tensors: dict[str, Tensor], layer: str) -> Tensor:
    return tensors[f"{layer}.lora_up.weight"].double() @ tensors[f"{layer}.lora_down.weight"].double() * 0.5


def test_on_off_on_restores_every_bit(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    unet, text = clones(models)
    before = copies(unet.module) | copies(text.module)
    addresses = {name: parameter.data_ptr() for name, parameter in unet.module.named_parameters()}
    patches = lora_patches(save(tmp_path / "a.safetensors", both_parts()), unet, text, spec())
    add_lora(patches, unet, text, strength=0.8, text_strength=0.6)
    unet.apply(), text.apply()
    on = copies(unet.module) | copies(text.module)
    changed = {name for name in before if not torch.equal(before[name], on[name])}
    assert changed == {UNET_WEIGHT, TEXT_WEIGHT}
    unet.restore(), text.restore()
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in (copies(unet.module) | copies(text.module)).items()
    )
    unet.apply(), text.apply()
    assert all(torch.equal(tensor, on[name]) for name, tensor in (copies(unet.module) | copies(text.module)).items())
    unet.restore(), text.restore()
    assert addresses == {name: parameter.data_ptr() for name, parameter in unet.module.named_parameters()}


def test_strengths_of_model_and_text_are_separate(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    unet, text = clones(models)
    tensors = both_parts()
    before = copies(unet.module)[UNET_WEIGHT], copies(text.module)[TEXT_WEIGHT]
    patches = lora_patches(save(tmp_path / "a.safetensors", tensors), unet, text, spec())
    add_lora(patches, unet, text, strength=0.8, text_strength=-0.5)
    unet.apply(), text.apply()
    expected = before[0].double() + 0.8 * delta(tensors, f"lora_unet_{ATTN1}_to_q")
    expected_text = before[1].double() - 0.5 * delta(tensors, TEXT_LAYER)
    assert relative_error(copies(unet.module)[UNET_WEIGHT], expected) < 1e-6
    assert relative_error(copies(text.module)[TEXT_WEIGHT], expected_text) < 1e-6
    unet.restore(), text.restore()


def test_strength_zero_is_absence(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    unet, text = clones(models)
    patches = lora_patches(save(tmp_path / "a.safetensors", both_parts()), unet, text, spec())
    before = copies(unet.module) | copies(text.module)
    add_lora(patches, unet, text, strength=0.0, text_strength=0.0)
    unet.apply(), text.apply()
    after = copies(unet.module) | copies(text.module)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_two_loras_at_once_add_up(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    unet, text = clones(models)
    before = copies(unet.module)[UNET_WEIGHT]
    expected = before.double()
    for seed, strength in ((0, 0.8), (50, -0.3)):
        tensors = both_parts(seed)
        patches = lora_patches(save(tmp_path / f"{seed}.safetensors", tensors), unet, text, spec())
        add_lora(patches, unet, text, strength=strength, text_strength=1.0)
        expected = expected + strength * delta(tensors, f"lora_unet_{ATTN1}_to_q")
    unet.apply()
    assert relative_error(copies(unet.module)[UNET_WEIGHT], expected) < 1e-6
    unet.restore()
    assert torch.equal(copies(unet.module)[UNET_WEIGHT], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_merge_in_fp32(
    dtype: torch.dtype, models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path
) -> None:
    unet, text = clones(models)
    tensors = {key: value.to(dtype) for key, value in both_parts().items()}
    expected = copies(unet.module)[UNET_WEIGHT].double() + delta(tensors, f"lora_unet_{ATTN1}_to_q")
    add_lora(
        lora_patches(save(tmp_path / "a.safetensors", tensors), unet, text, spec()),
        unet,
        text,
        strength=1,
        text_strength=1,
    )
    unet.apply()
    assert relative_error(copies(unet.module)[UNET_WEIGHT], expected) < 1e-6
    unet.restore()


def test_half_precision_network_gets_the_rounded_fp32_sum(tmp_path: Path) -> None:
    unet, text = ModelPatcher(tiny.unet().half(), "cpu"), ModelPatcher(tiny.text_encoders().half(), "cpu")
    tensors = both_parts()
    before = copies(unet.module)[UNET_WEIGHT]
    add_lora(
        lora_patches(save(tmp_path / "a.safetensors", tensors), unet, text, spec()),
        unet,
        text,
        strength=1,
        text_strength=1,
    )
    unet.apply()
    layer = f"lora_unet_{ATTN1}_to_q"
    product = tensors[f"{layer}.lora_up.weight"] @ tensors[f"{layer}.lora_down.weight"] * 0.5
    assert torch.equal(copies(unet.module)[UNET_WEIGHT], (before.float() + product).half())


def test_bias_and_norm_differences(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    unet, text = clones(models)
    tensors = {
        "lora_unet_down_blocks_0_resnets_0_conv1.diff": random(64, 64, 3, 3),
        "lora_unet_down_blocks_0_resnets_0_conv1.diff_b": random(64, seed=1),
        "lora_unet_down_blocks_0_resnets_0_norm1.w_norm": random(64, seed=2),
        "lora_unet_down_blocks_0_resnets_0_norm1.b_norm": random(64, seed=3),
    }
    before = copies(unet.module)
    add_lora(
        lora_patches(save(tmp_path / "a.safetensors", tensors), unet, text, spec()),
        unet,
        text,
        strength=0.5,
        text_strength=1,
    )
    unet.apply()
    names = ("in_layers.2.weight", "in_layers.2.bias", "in_layers.0.weight", "in_layers.0.bias")
    for name, difference in zip(names, tensors.values(), strict=True):
        full = f"input_blocks.1.0.{name}"
        assert relative_error(copies(unet.module)[full], before[full].double() + 0.5 * difference.double()) < 1e-6
    unet.restore()


def test_packed_projection_changes_only_its_third(
    sd2_models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path
) -> None:
    unet, text = clones(sd2_models)
    layer = "lora_te_text_model_encoder_layers_0_self_attn_k_proj"
    tensors = lora(layer, 1024, 1024)
    name = "clip_h.transformer.resblocks.0.attn.in_proj_weight"
    before = copies(text.module)[name]
    add_lora(
        lora_patches(save(tmp_path / "a.safetensors", tensors), unet, text, spec(sd2=True)),
        unet,
        text,
        strength=1,
        text_strength=1,
    )
    text.apply()
    after = copies(text.module)[name]
    assert torch.equal(after[:1024], before[:1024]) and torch.equal(after[2048:], before[2048:])
    assert relative_error(after[1024:2048], before[1024:2048].double() + delta(tensors, layer)) < 1e-6
    text.restore()


def test_unmatched_keys_are_reported_in_one_line(
    models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = (
        both_parts()
        | lora("lora_unet_no_such_layer", 8, 8)
        | {"some.stray.tensor": random(2), "x.oft_blocks": random(2)}
    )
    with caplog.at_level(logging.WARNING):
        patches = lora_patches(save(tmp_path / "stray.safetensors", tensors), *models, spec())
    assert len(patches.unmatched) == 5
    (record,) = caplog.records
    assert record.getMessage() == (
        "stray.safetensors: 5 of 11 keys match nothing in this model and were left out: lora_unet_no_such_layer.alpha, "
        "lora_unet_no_such_layer.lora_down.weight, lora_unet_no_such_layer.lora_up.weight and 2 more."
    )
    assert list(patches.unet) == [UNET_WEIGHT] and list(patches.text) == [TEXT_WEIGHT]


def test_bias_for_a_layer_without_one_is_unmatched(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    tensors = both_parts() | {f"lora_unet_{ATTN1}_to_q.diff_b": random(64)}
    assert lora_patches(save(tmp_path / "a.safetensors", tensors), *models, spec()).unmatched == [
        f"lora_unet_{ATTN1}_to_q.diff_b"
    ]


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        (lora(f"lora_unet_{ATTN2}_to_k", 320, 768), "SD1.x"),
        (lora(f"lora_unet_{ATTN2}_to_k", 640, 2048), "SDXL"),
        (lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 3072, 768), "SD1.x"),
        (lora("lora_te2_text_model_encoder_layers_0_mlp_fc1", 5120, 1280), "SDXL"),
        (lora("lora_unet_double_blocks_0_img_attn_proj", 3072, 3072), "Flux"),
        (lora("transformer.joint_blocks.0.x_block.attn.proj", 1536, 1536), "SD3"),
        # A single matching layer does not make this a LoRA for the model.
        (lora("lora_unet_time_embedding_linear_2", 256, 256) | lora(f"lora_unet_{ATTN2}_to_v", 320, 768), "SD1.x"),
    ],
)
def test_other_families_are_named(
    tensors: dict[str, Tensor], family: str, sd2_models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path
) -> None:
    path = save(tmp_path / "other.safetensors", tensors)
    message = f"other.safetensors was made for {family}, this checkpoint is SD2.x; choose a LoRA made for SD2.x."
    with pytest.raises(ModelFileError) as raised:
        lora_patches(path, *sd2_models, spec(sd2=True))
    assert str(raised.value) == message


def test_same_family_of_other_width_is_refused(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    path = save(tmp_path / "wide.safetensors", lora(f"lora_unet_{ATTN2}_to_k", 320, 64))
    with pytest.raises(ModelFileError, match=r"wide.safetensors does not fit .* 320 x 64 weights"):
        lora_patches(path, *models, spec())


def test_nothing_matching_is_refused(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    path = save(tmp_path / "strange.safetensors", lora("lora_unet_blocks_0_thing", 64, 64))
    with pytest.raises(ModelFileError, match="No layer that strange.safetensors changes exists"):
        lora_patches(path, *models, spec())


def test_a_lora_for_four_channels_fits_an_inpainting_model(
    models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path
) -> None:
    tensors = both_parts() | lora("lora_unet_conv_in", 64, 9 * 9)
    patches = lora_patches(save(tmp_path / "a.safetensors", tensors), *models, spec())
    assert len(patches.unmatched) == 3 and list(patches.unet) == [UNET_WEIGHT]


@pytest.mark.parametrize(
    "spelling",
    ["lora_te1_", "text_encoders.clip_l.transformer.", "cond_stage_model.transformer.", "lora_clip_", "text_encoder."],
)
def test_spellings_of_the_text_encoder(
    spelling: str, models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path
) -> None:
    name = spelling + TEXT_LAYER.removeprefix("lora_te_")
    patches = lora_patches(save(tmp_path / "a.safetensors", lora(name, 128, 64)), *models, spec())
    assert list(patches.text) == [TEXT_WEIGHT] and not patches.unmatched


def test_a_layer_under_two_names_is_changed_once(
    models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = lora(TEXT_LAYER, 128, 64) | lora("text_encoder." + TEXT_LAYER.removeprefix("lora_te_"), 128, 64, seed=5)
    patches = lora_patches(save(tmp_path / "a.safetensors", twice), *models, spec())
    assert len(patches.text[TEXT_WEIGHT]) == 1 and "1 layers are there twice" in caplog.text


def test_damaged_files(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.safetensors", both_parts()).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    tensors = both_parts()
    tensors[f"lora_unet_{ATTN1}_to_q.lora_up.weight"] = random(64, 3)
    save(tmp_path / "ranks.safetensors", tensors)
    tensors[f"lora_unet_{ATTN1}_to_q.lora_up.weight"] = torch.full((64, 4), torch.nan)
    save(tmp_path / "nan.safetensors", tensors)
    for name, words in (("cut", "cut off"), ("ranks", "do not fit each other"), ("nan", "not numbers")):
        with pytest.raises(ModelFileError, match=words):
            lora_patches(tmp_path / f"{name}.safetensors", *models, spec())


def test_a_checkpoint_is_not_a_lora(models: tuple[ModelPatcher, ModelPatcher], tmp_path: Path) -> None:
    path = save(tmp_path / "net.safetensors", {"control_model.input_hint_block.0.weight": random(16, 3, 3, 3)})
    with pytest.raises(ModelFileError, match="not a supported LoRA but a ControlNet"):
        lora_patches(path, *models, spec())


@pytest.mark.gpu
def test_a_switch_on_a_gpu_waits_for_nothing_and_moves_nothing(tmp_path: Path) -> None:
    unet, text = (ModelPatcher(network.half().cuda(), "cuda") for network in (tiny.unet(), tiny.text_encoders()))
    before = copies(unet.module)
    patches = lora_patches(save(tmp_path / "a.safetensors", both_parts()), unet, text, spec())
    factors = [factor for changes in patches.unet.values() for patch in changes for factor in patch.factors()]
    assert factors and all(factor.is_cuda for factor in factors)
    add_lora(patches, unet, text, strength=0.8, text_strength=0.6)
    torch.cuda.set_sync_debug_mode("error")
    try:
        unet.apply(), text.apply()
        changed = unet.module.get_parameter(UNET_WEIGHT).clone()
        unet.restore(), text.restore()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not torch.equal(changed, before[UNET_WEIGHT])
    assert all(torch.equal(tensor, before[name]) for name, tensor in copies(unet.module).items())
