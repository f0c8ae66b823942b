"""A whole UNet against LyCORIS: LoCon with mid, LoHa, LoKr and DoRA on every layer, merged by LyCORIS and by us."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from modules.loader.layouts.diffusers import unet_to_ldm
from modules.loader.patcher import ModelPatcher
from modules.lora.apply import add_lora, lora_patches
from tests import tiny
from tests.lora.builders import random, relative_error, save, spec

diffusers = pytest.importorskip("diffusers")
lycoris = pytest.importorskip("lycoris")

EVERY_LAYER = {
    "target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
    "target_name": [],
}


def diffusers_unet() -> nn.Module:
    config = tiny.SD1_UNET
    model = diffusers.UNet2DConditionModel(
        block_out_channels=config.channels,
        cross_attention_dim=config.context_dim,
        attention_head_dim=[config.heads_at(channels) for channels in config.channels],
        norm_num_groups=config.groups,
    )
    return tiny.randomise(model, 5)


@pytest.mark.parametrize(("algorithm", "dora"), [("lora", False), ("loha", False), ("lokr", False), ("lora", True)])
def test_merge_of_a_whole_unet_equals_lycoris(algorithm: str, dora: bool, tmp_path: Path) -> None:
    oracle = diffusers_unet()
    base = unet_to_ldm({name: tensor.clone() for name, tensor in oracle.state_dict().items()})
    ours = tiny.unet()
    ours.load_state_dict(base)

    # LyCORIS 4.1 merges LoHa and LoKr with the square of alpha / rank, unlike its own forward pass (the reference of
    # test_weights.py). Both agree if alpha / rank is 1.
    alpha = 2.0 if algorithm == "lora" else 3.0
    lycoris.LycorisNetwork.apply_preset(EVERY_LAYER)
    network = lycoris.create_lycoris(
        oracle,
        1.0,
        algo=algorithm,
        linear_dim=3,
        linear_alpha=alpha,
        conv_dim=3,
        conv_alpha=alpha,
        use_tucker=True,
        dora_wd=dora,
    )
    network.apply_to()  # the parameters exist only after this call
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(network.named_parameters()):
            noise = random(*parameter.shape, seed=seed)
            parameter.copy_(parameter + 0.1 * noise if "dora" in name else noise)
    path = save(tmp_path / "style.safetensors", network.state_dict())
    network.restore()
    network.merge_to(1.0)

    unet, text = ModelPatcher(ours, "cpu"), ModelPatcher(tiny.text_encoders(), "cpu")
    patches = lora_patches(path, unet, text, spec())
    add_lora(patches, unet, text, strength=1.0, text_strength=1.0)
    unet.apply()
    merged = unet_to_ldm(dict(oracle.state_dict()))
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert patches.unmatched == [] and changed == set(patches.unet) and len(changed) > 200
    weights = dict(ours.named_parameters())
    for name in changed:
        assert relative_error(weights[name], merged[name].reshape(weights[name].shape)) < 1e-5, name
    unet.restore()
    assert all(torch.equal(weights[name], base[name]) for name in changed)
