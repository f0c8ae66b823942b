"""The demo model's files: SD1.5's keys, a header, readable by diffusers' converters; extras in their usual layouts."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions, LoraChoice
from modules.generation.session import Session
from modules.models.configs import UNetConfig, VAEConfig
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL
from tests import tiny
from tests.models.oracles import diffusers_unet, diffusers_vae
from tools.demo_model.training.export import (
    CLIP_TABLE,
    LIMIT_BYTES,
    PREFIXES,
    checkpoint_facts,
    export_checkpoint,
    split_file,
)
from tools.demo_model.training.networks import TEXT, UNET, VAE, build_networks
from tools.demo_model.training.sampling import load_demo

EXTRAS = ("loras/demo_ink", "loras/demo_neon", "controlnet/demo_canny", "embeddings/demo_emblem")


def read_header(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["lightdiffusion"])


@pytest.fixture(scope="module")
def weights(demo_checkpoint: Path) -> dict[str, Tensor]:
    return load_file(demo_checkpoint)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports untrained networks."""
    path = tmp_path_factory.mktemp("export") / "fresh.safetensors"
    export_checkpoint(build_networks(torch.device("cpu"), seed=1), path)
    return path


def test_unet_and_vae_keys_are_those_of_sd15(weights: dict[str, Tensor]) -> None:
    """There are two extra keys: the last level is narrower than the one before, so its first block has a skip layer."""
    with torch.device("meta"):
        full = {"unet": UNet(UNetConfig()), "vae": AutoencoderKL(VAEConfig())}
    wanted = {PREFIXES[name] + key for name, network in full.items() for key in network.state_dict()}
    found = {key for key in weights if not key.startswith(PREFIXES["text"])}
    skip = "model.diffusion_model.input_blocks.10.0.skip_connection."
    assert len(wanted) == 934 and wanted <= found
    assert found - wanted == {f"{skip}weight", f"{skip}bias"}


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_diffusers_own_converters_read_it_completely(weights: dict[str, Tensor], part: str) -> None:
    oracle = diffusers_unet(UNET) if part == "unet" else diffusers_vae(VAE)
    convert = convert_ldm_unet_checkpoint if part == "unet" else convert_ldm_vae_checkpoint
    converted = convert({k: v.float() for k, v in weights.items()}, oracle.config)
    result = oracle.load_state_dict(converted, strict=False)
    assert result.missing_keys == [] and result.unexpected_keys == []


def test_shipped_files_are_small_and_finite(demo_checkpoint: Path, weights: dict[str, Tensor]) -> None:
    assert demo_checkpoint.stat().st_size <= LIMIT_BYTES
    assert all(value.float().isfinite().all() for value in weights.values())
    extras = [demo_checkpoint.parents[1] / f"{name}.safetensors" for name in EXTRAS]
    assert sum(path.stat().st_size for path in extras) <= 6 * 2**20


def test_only_the_tokens_are_in_eight_bits(weights: dict[str, Tensor]) -> None:
    """Other programs read the file without knowing of factors."""
    kinds = {name: value.dtype for name, value in weights.items() if value.is_floating_point()}
    assert kinds.pop(f"{PREFIXES['text']}{CLIP_TABLE}") == torch.float8_e4m3fn
    assert set(kinds.values()) == {torch.float16}


def test_header_says_what_cannot_be_inferred(demo_checkpoint: Path, exported: Path) -> None:
    facts = read_header(demo_checkpoint)
    assert facts == read_header(exported) == checkpoint_facts()
    assert (facts["unet_heads"], facts["unet_groups"], facts["vae_groups"]) == (UNET.heads, UNET.groups, VAE.groups)
    assert facts["native_size"] == 128 and facts["prediction_type"] == "epsilon" and facts["description"]


def test_an_export_has_the_keys_and_shapes_of_the_shipped_file(exported: Path, weights: dict[str, Tensor]) -> None:
    fresh = load_file(exported)
    assert {k: (v.shape, v.dtype) for k, v in fresh.items()} == {k: (v.shape, v.dtype) for k, v in weights.items()}


def test_the_tool_and_the_app_read_the_same_networks(demo_checkpoint: Path) -> None:
    ours = load_demo(demo_checkpoint, torch.device("cpu"))
    session = Session(ModelFolders(demo_checkpoint.parents[2]), device="cpu", dtype="float32")
    model = session.model(GenerationOptions(prompt="", checkpoint=demo_checkpoint.name))
    assert model.spec.native_size == 128 and model.spec.unet == UNET and model.spec.vae == VAE
    assert model.spec.texts[0].layers == TEXT.layers
    for mine, apps in ((ours.unet, model.unet.module), (ours.vae, model.vae), (ours.text, tiny.only_text(model))):
        theirs = apps.state_dict()
        assert all(torch.equal(value, theirs[key].float()) for key, value in mine.state_dict().items())


def test_every_key_of_the_loras_lands(demo_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(ModelFolders(demo_checkpoint.parents[2]), device="cpu", dtype="float32")
    model = session.model(GenerationOptions(prompt="", checkpoint=demo_checkpoint.name))
    with caplog.at_level(logging.WARNING):
        for name in ("demo_ink", "demo_neon"):
            pairs = [k for k in load_file(demo_checkpoint.parents[1] / "loras" / f"{name}.safetensors") if "up" in k]
            unet, _ = session.patched(model, [LoraChoice(name=name)])
            assert len(pairs) > 100 and not torch.equal(*_one_weight(unet.module, model.unet.pristine()))
    assert caplog.text == ""
    session.patched(model, [])


def _one_weight(network: torch.nn.Module, pristine: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    name = "middle_block.1.transformer_blocks.0.attn2.to_q.weight"
    return network.state_dict()[name].float(), pristine[name].float()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    networks = build_networks(torch.device("cpu"), seed=1)
    with torch.no_grad():
        networks.vae.quant_conv.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="quant_conv"):
        export_checkpoint(networks, tmp_path / "broken.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_parts_join_to_the_file(demo_checkpoint: Path, tmp_path: Path) -> None:
    parts = split_file(demo_checkpoint, tmp_path)
    assert len(parts) == 3 and b"".join(part.read_bytes() for part in parts) == demo_checkpoint.read_bytes()
