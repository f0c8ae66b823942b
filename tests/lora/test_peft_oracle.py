"""Whole networks against PEFT: one adapter, merged by PEFT and by us, in every common layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modules.loader.layouts.diffusers import text_to_openclip, unet_to_ldm
from modules.loader.patcher import ModelPatcher
from modules.lora.apply import add_lora, lora_patches
from modules.models.clip import TextEncoders
from modules.models.unet import UNet
from tests import tiny
from tests.lora.builders import random, relative_error, save, spec

peft = pytest.importorskip("peft")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
CONVOLUTIONS = [
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
    "conv_in",
]
# Like tests/tiny.py, but with fewer tokens and narrower text encoders, so that twelve merges stay fast.
UNETS = {False: tiny.SD1_UNET, True: replace(tiny.SD2_UNET, context_dim=64)}
TEXTS = {False: replace(tiny.SD1_TEXT, vocab_size=100), True: replace(tiny.SD2_TEXT, width=64, heads=1, vocab_size=100)}
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def oracle_unet(*, sd2: bool) -> nn.Module:
    config = UNETS[sd2]
    heads = [config.heads_at(channels) for channels in config.channels]
    model = diffusers.UNet2DConditionModel(
        block_out_channels=config.channels,
        cross_attention_dim=config.context_dim,
        attention_head_dim=heads,
        norm_num_groups=config.groups,
        use_linear_projection=config.linear_projection,
    )
    return tiny.randomise(model, 5)


def oracle_text(*, sd2: bool) -> nn.Module:
    config = TEXTS[sd2]
    model = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            hidden_act=config.activation,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    return tiny.randomise(model, 6)


def clip_names(state: dict[str, Tensor], *, sd2: bool) -> dict[str, Tensor]:
    """Returns the oracle's text weights under our names (transformers 5 omits "text_model.")."""
    if sd2:
        state = {name: tensor for name, tensor in state.items() if "position_ids" not in name}
        return {f"clip_h.{name}": tensor for name, tensor in text_to_openclip(state).items()}
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items() if "position_ids" not in name}
    return {f"clip_l.text_model.{name}": tensor for name, tensor in state.items()}


def our_models(unet: nn.Module, text: nn.Module, *, sd2: bool) -> tuple[ModelPatcher, ModelPatcher]:
    ours = UNet(UNETS[sd2])
    ours.load_state_dict(unet_to_ldm(unet.state_dict()))
    ours_text = TextEncoders([TEXTS[sd2]])
    ours_text.load_state_dict(clip_names(text.state_dict(), sd2=sd2))
    return ModelPatcher(ours, "cpu"), ModelPatcher(ours_text, "cpu")


def with_adapter(
    model: nn.Module, targets: list[str], *, dora: bool, rslora: bool = False
) -> tuple[nn.Module, dict[str, Tensor]]:
    config = peft.LoraConfig(r=4, lora_alpha=2, target_modules=targets, use_dora=dora, use_rslora=rslora)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(wrapped.named_parameters()):
            if "magnitude" in name:
                parameter.mul_(1.0 + 0.2 * random(*parameter.shape, seed=seed))
            elif "lora_" in name:
                parameter.copy_(random(*parameter.shape, seed=seed))
    return wrapped, peft.get_peft_model_state_dict(wrapped)


def merged_states(
    wrapped_unet: nn.Module, wrapped_text: nn.Module, *, sd2: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    unet = wrapped_unet.merge_and_unload().state_dict()
    return unet_to_ldm(unet), clip_names(wrapped_text.merge_and_unload().state_dict(), sd2=sd2)


def peft_layout(unet: dict[str, Tensor], text: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout of diffusers' save_lora_weights: components as prefixes, alpha as left by diffusers' converters."""
    named = {f"unet.{key.removeprefix('base_model.model.')}": value for key, value in unet.items()}
    named |= {f"text_encoder.text_model.{key.removeprefix('base_model.model.')}": value for key, value in text.items()}
    alphas = {key.removesuffix(".lora_A.weight") + ".alpha": torch.tensor(2.0) for key in named if "lora_A" in key}
    return named | alphas


def bare_peft_layout(unet: dict[str, Tensor], text: dict[str, Tensor]) -> dict[str, Tensor]:
    """PEFT's own names; alpha comes from the header."""
    return unet | {key.replace("base_model.model.", "text_encoder."): value for key, value in text.items()}


def kohya_layout(unet: dict[str, Tensor], text: dict[str, Tensor]) -> dict[str, Tensor]:
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    named = {f"unet.{key.removeprefix('base_model.model.')}": value for key, value in unet.items()}
    named |= {f"text_encoder.text_model.{key.removeprefix('base_model.model.')}": value for key, value in text.items()}
    converted = convert_state_dict_to_kohya(named)
    return {key: torch.tensor(2.0) if key.endswith(".alpha") else value for key, value in converted.items()}


def processor_layout(unet: dict[str, Tensor], text: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' attention processors before PEFT: attention only, without alpha; the up matrix includes the scale."""
    named: dict[str, Tensor] = {}
    for key, value in unet.items():
        key = key.removeprefix("base_model.model.")
        if ".attn" in key:
            head, _, tail = key.partition(".to_")
            letter = tail.split(".")[0]
            end, value = ("down", value) if "lora_A" in key else ("up", value * 0.5)
            named[f"unet.{head}.processor.to_{letter}_lora.{end}.weight"] = value
    for key, value in text.items():
        module, _, tail = key.removeprefix("base_model.model.").rpartition(".lora_")
        end, value = ("down", value) if tail.startswith("A") else ("up", value * 0.5)
        named[f"text_encoder.text_model.{module}.lora_linear_layer.{end}.weight"] = value
    return named


def ldm_layout(unet: dict[str, Tensor], text: dict[str, Tensor]) -> dict[str, Tensor]:
    """lora.up / lora.down on LDM names, as saved by other programs."""
    renamed = unet_to_ldm({key.removeprefix("base_model.model."): value for key, value in unet.items()})
    named = {f"diffusion_model.{key}": value for key, value in renamed.items()}
    named |= {f"text_encoder.{key.removeprefix('base_model.model.')}": value for key, value in text.items()}
    return {
        key.replace("lora_A.weight", "lora.down.weight").replace("lora_B.weight", "lora.up.weight"): value
        if "lora_A" in key
        else value * 0.5
        for key, value in named.items()
    }


@pytest.mark.parametrize(
    ("layout", "sd2"),
    [
        *((layout, False) for layout in (peft_layout, bare_peft_layout, kohya_layout, processor_layout, ldm_layout)),
        *((layout, True) for layout in (peft_layout, kohya_layout)),
    ],
)
def test_merge_equals_peft(
    layout: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]], sd2: bool, tmp_path: Path
) -> None:
    unet, text = oracle_unet(sd2=sd2), oracle_text(sd2=sd2)
    ours, ours_text = our_models(unet, text, sd2=sd2)
    attention_only = layout is processor_layout
    targets = ["to_q", "to_k", "to_v", "to_out.0"] if attention_only else ATTENTION + CONVOLUTIONS
    wrapped_unet, unet_lora = with_adapter(unet, targets, dora=False)
    wrapped_text, text_lora = with_adapter(text, TEXT, dora=False)
    header = {"unet.r": 4, "unet.lora_alpha": 2, "text_encoder.r": 4, "text_encoder.lora_alpha": 2}
    header |= {"r": 4, "lora_alpha": 2}
    metadata = {"lora_adapter_metadata": json.dumps(header)} if layout is bare_peft_layout else None
    path = save(tmp_path / "lora.safetensors", layout(unet_lora, text_lora), metadata)

    patches = lora_patches(path, ours, ours_text, replace(spec(sd2=sd2), unet=UNETS[sd2], texts=(TEXTS[sd2],)))
    assert patches.unmatched == []
    assert_merged(ours, ours_text, patches, merged_states(wrapped_unet, wrapped_text, sd2=sd2))


@pytest.mark.parametrize("sd2", [False, True], ids=["sd1", "sd2"])
def test_dora_with_rslora_equals_peft(sd2: bool, tmp_path: Path) -> None:
    unet, text = oracle_unet(sd2=sd2), oracle_text(sd2=sd2)
    ours, ours_text = our_models(unet, text, sd2=sd2)
    wrapped_unet, unet_lora = with_adapter(unet, ATTENTION + CONVOLUTIONS, dora=True, rslora=True)
    wrapped_text, text_lora = with_adapter(text, TEXT, dora=True, rslora=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2, "use_rslora": True}))
    path = save(tmp_path / "adapter_model.safetensors", bare_peft_layout(unet_lora, text_lora))

    patches = lora_patches(path, ours, ours_text, replace(spec(sd2=sd2), unet=UNETS[sd2], texts=(TEXTS[sd2],)))
    assert patches.unmatched == []
    assert_merged(ours, ours_text, patches, merged_states(wrapped_unet, wrapped_text, sd2=sd2))


def assert_merged(
    unet: ModelPatcher, text: ModelPatcher, patches: object, expected: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    add_lora(patches, unet, text, strength=1.0, text_strength=1.0)  # type: ignore[arg-type]
    changed = 0
    for patcher, weights in zip((unet, text), expected, strict=True):
        before = {name: parameter.clone() for name, parameter in patcher.module.named_parameters()}
        patcher.apply()
        for name, parameter in patcher.module.named_parameters():
            changed += not torch.equal(parameter, before[name])
            assert relative_error(parameter, weights[name]) < 1e-5, name
    assert changed == sum(len(names) for names in (patches.unet, patches.text))  # type: ignore[attr-defined]
