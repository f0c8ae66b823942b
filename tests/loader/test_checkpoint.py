"""Whole checkpoints of every layout and dtype give the same networks; bad files are refused with the weight's name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from modules.core.errors import ModelFileError, OptionsError
from modules.loader.checkpoint import LoadedModel, load_checkpoint
from modules.loader.layouts.diffusers import vae_to_ldm
from modules.models.clip import OpenClipTextModel
from tests import tiny
from tests.models.oracles import diffusers_unet, diffusers_vae, random_ids, transformers_text

CPU = torch.device("cpu")


def load(path: Path, dtype: torch.dtype = torch.float32, **options: object) -> LoadedModel:
    return load_checkpoint(path, device=CPU, dtype=dtype, **options)  # type: ignore[arg-type]


def weights(model: LoadedModel) -> dict[str, Tensor]:
    parts = {"unet": model.unet.module, "text": tiny.only_text(model), "vae": model.vae}
    return {f"{part}.{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}


def assert_same(model: LoadedModel, other: LoadedModel) -> None:
    mine, theirs = weights(model), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("sd1") / "tiny one.safetensors")


TYPES = (torch.float16, torch.bfloat16, torch.float32)
TYPE_CASES = [(stored, wanted, False) for stored in TYPES for wanted in TYPES] + [
    (torch.float16, torch.float16, True),
    (torch.float16, torch.float32, True),
]


@pytest.mark.parametrize(("stored", "wanted", "sd2"), TYPE_CASES)
def test_types(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, sd2: bool) -> None:
    path = tiny.save_checkpoint(tmp_path / "m.safetensors", sd2=sd2, dtype=stored)
    model = load(path, wanted, prediction="epsilon")
    file = load_file(path)
    prefix = "cond_stage_model.model." if sd2 else "cond_stage_model.transformer."
    for name, tensor in weights(model).items():
        part, key = name.split(".", 1)
        key = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text": prefix}[part] + key
        assert tensor.dtype == wanted and not tensor.is_meta
        assert torch.equal(tensor, file[key].to(wanted))
    assert not any(parameter.requires_grad for parameter in model.unet.module.parameters())
    assert not model.unet.module.training


def test_networks_run(sd1: Path) -> None:
    model = load(sd1)
    unet, text = model.unet.module, tiny.only_text(model)
    with torch.inference_mode():
        context = text(text.embed_tokens(random_ids(1)))  # type: ignore[operator]
        out = unet(torch.randn(1, 4, 8, 8), torch.tensor([10.0]), context)
        picture = model.vae.decode(out)
    assert picture.shape == (1, 3, 64, 64) and picture.isfinite().all()
    assert picture.std() > 0


def test_weights_that_fit_are_assigned_and_never_change_the_file(sd1: Path) -> None:
    before = sd1.read_bytes()
    model = load(sd1, torch.float16)
    file = [t.data_ptr() for t in model.unet.module.parameters()]
    assert max(file) - min(file) < sd1.stat().st_size  # all are in one mapping
    with torch.no_grad():
        for parameter in model.unet.module.parameters():
            parameter.fill_(1)
    assert sd1.read_bytes() == before


def test_the_vae_may_have_its_own_type(sd1: Path) -> None:
    model = load(sd1, torch.float16, vae_dtype=torch.float32)
    assert model.vae.quant_conv.weight.dtype == torch.float32
    assert next(model.unet.module.parameters()).dtype == torch.float16


def test_name_path_and_hash(sd1: Path) -> None:
    model = load(sd1)
    assert (model.name, model.path) == ("tiny one", sd1)
    assert model.sha256 == hashlib.sha256(sd1.read_bytes()).hexdigest()[:10]


def test_prediction_override(sd1: Path) -> None:
    assert load(sd1).spec.prediction == "epsilon"
    assert load(sd1, prediction="v").spec.prediction == "v"
    with pytest.raises(OptionsError, match="velocity"):
        load(sd1, prediction="velocity")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
def test_pickled_checkpoint(tmp_path: Path, sd1: Path, suffix: str) -> None:
    torch.save({"state_dict": load_file(sd1), "global_step": 3}, tmp_path / f"m{suffix}")
    assert_same(load(tmp_path / f"m{suffix}"), load(sd1))


def test_ema_only_checkpoint(tmp_path: Path, sd1: Path) -> None:
    prefix = "model.diffusion_model."
    state = {
        f"model_ema.diffusion_model{name[len(prefix) :].replace('.', '')}" if name.startswith(prefix) else name: tensor
        for name, tensor in load_file(sd1).items()
    }
    save_file(state, tmp_path / "ema.safetensors")
    assert_same(load(tmp_path / "ema.safetensors"), load(sd1))


def diffusers_model(*, sd2: bool) -> dict[str, torch.nn.Module]:
    unet, text = (tiny.SD2_UNET, tiny.SD2_TEXT) if sd2 else (tiny.SD1_UNET, tiny.SD1_TEXT)
    return {
        "unet": tiny.randomise(diffusers_unet(unet), 1),
        "vae": tiny.randomise(diffusers_vae(tiny.VAE), 2),
        "text_encoder": tiny.randomise(transformers_text(text, layers=text.layers - text.skip), 3),
    }


def save_folder(path: Path, parts: dict[str, torch.nn.Module], scheduler: dict[str, object] | None = None) -> Path:
    for name, module in parts.items():
        module.save_pretrained(path / name)  # type: ignore[operator]
    (path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or {}))
    return path


@pytest.mark.parametrize("sd2", [False, True], ids=["sd1", "sd2"])
def test_diffusers_folder(tmp_path: Path, sd2: bool) -> None:
    parts = diffusers_model(sd2=sd2)
    facts = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    model = load(save_folder(tmp_path / "model-v1.5", parts, facts))
    spec = model.spec
    assert model.name == "model-v1.5"
    assert (spec.prediction, spec.zero_terminal_snr) == ("v", True)
    assert spec.family == ("SD2.x" if sd2 else "SD1.x")
    assert spec.unet == (tiny.SD2_UNET if sd2 else tiny.SD1_UNET)
    assert spec.vae == tiny.VAE
    assert isinstance(tiny.only_text(model), OpenClipTextModel) == sd2
    ids, x, t = random_ids(1), torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    text = tiny.only_text(model)
    with torch.inference_mode():
        expected = parts["text_encoder"](ids).last_hidden_state
        actual = text(text.embed_tokens(ids), spec.texts[0].skip)  # type: ignore[operator]
        assert (actual - expected).abs().max() < 1e-4
        noise = parts["unet"](x, t, expected).sample
        assert (model.unet.module(x, t, expected) - noise).abs().max() < 1e-4
        assert (model.vae.decode(x) - parts["vae"].decode(x).sample).abs().max() < 1e-4  # type: ignore[operator]
    assert len(model.sha256) == 10


def test_diffusers_single_file(tmp_path: Path) -> None:
    parts = diffusers_model(sd2=False)
    state = {f"{part}.{name}": t.contiguous() for part, m in parts.items() for name, t in m.state_dict().items()}
    save_file(state, tmp_path / "single.safetensors")
    folder = load(save_folder(tmp_path / "folder", parts))
    assert_same(load(tmp_path / "single.safetensors"), folder)


def test_folders_that_are_not_sd_models(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="model_index.json"):
        load(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelFileError, match="FluxPipeline"):
        load(tmp_path)
    (tmp_path / "unet").mkdir()
    with pytest.raises(ModelFileError, match="no weights in"):
        load(tmp_path)


@pytest.mark.parametrize("style", ["prefixed", "bare", "diffusers", "old matrices", "pickle"])
def test_vae_override(tmp_path: Path, sd1: Path, style: str) -> None:
    oracle = tiny.randomise(diffusers_vae(tiny.VAE), 9)
    ldm = {name: tensor.contiguous() for name, tensor in vae_to_ldm(oracle.state_dict()).items()}
    path = tmp_path / "vae.safetensors"
    if style == "prefixed":
        save_file({f"first_stage_model.{name}": tensor for name, tensor in ldm.items()}, path)
    elif style == "bare":
        save_file(ldm, path)
    elif style == "diffusers":
        save_file(dict(oracle.state_dict()), path)
    elif style == "old matrices":
        save_file(
            {n: t[:, :, 0, 0].contiguous() if ".attn_1." in n and t.ndim == 4 else t for n, t in ldm.items()}, path
        )
    else:
        path = tmp_path / "vae.pt"
        torch.save({"state_dict": ldm | {"loss.logvar": torch.zeros(())}}, path)
    model = load(sd1, vae_path=path)
    state = model.vae.state_dict()
    assert all(torch.equal(state[name], ldm[name].reshape(state[name].shape)) for name in ldm)
    assert not torch.equal(state["quant_conv.weight"], load(sd1).vae.state_dict()["quant_conv.weight"])


def test_vae_of_another_checkpoint_or_folder(tmp_path: Path, sd1: Path) -> None:
    other = tiny.save_checkpoint(tmp_path / "other.safetensors", seed=5)
    model = load(sd1, vae_path=other)
    assert torch.equal(model.vae.quant_conv.weight, load(other).vae.quant_conv.weight)
    folder = save_folder(tmp_path / "folder", diffusers_model(sd2=False))
    assert_same_vae = load(sd1, vae_path=folder).vae.state_dict()
    expected = load(folder).vae.state_dict()
    assert all(torch.equal(assert_same_vae[name], expected[name]) for name in expected)


def test_checkpoint_without_vae_needs_one(tmp_path: Path, sd1: Path) -> None:
    state = {name: tensor for name, tensor in load_file(sd1).items() if not name.startswith("first_stage_model.")}
    save_file(state, tmp_path / "bare.safetensors")
    with pytest.raises(ModelFileError, match="--vae"):
        load(tmp_path / "bare.safetensors")
    assert_same(load(tmp_path / "bare.safetensors", vae_path=sd1), load(sd1))


def test_files_that_are_not_vaes(tmp_path: Path, sd1: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.ones(1, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelFileError, match="lora.safetensors.*a LoRA.*VAE"):
        load(sd1, vae_path=tmp_path / "lora.safetensors")
    flux = tiny.vae(tiny.VAEConfig(channels=(16, 32, 32, 32), groups=4, latent_channels=16))
    save_file(dict(flux.state_dict()), tmp_path / "flux.safetensors")
    with pytest.raises(ModelFileError, match="16 latent channels"):
        load(sd1, vae_path=tmp_path / "flux.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "lacks input_blocks.3.0.in_layers.2.bias"),
        ("shape", r"input_blocks.3.0.in_layers.2.bias of the UNet has shape \[5\]"),
        ("unexpected", "unexpected weight .zebra"),
        ("text", "text encoder lacks text_model.encoder.layers.1.mlp.fc1.bias"),
        ("vae", "VAE lacks decoder.mid.block_1.conv1.bias"),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, sd1: Path, change: str, words: str) -> None:
    state = load_file(sd1)
    bias = "model.diffusion_model.input_blocks.3.0.in_layers.2.bias"
    if change == "missing":
        del state[bias]
    elif change == "shape":
        state[bias] = torch.zeros(5)
    elif change == "unexpected":
        state["model.diffusion_model.zebra"] = torch.zeros(5)
    elif change == "text":
        del state["cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias"]
    else:
        del state["first_stage_model.decoder.mid.block_1.conv1.bias"]
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match=rf"m\.safetensors.*{words}"):
        load(tmp_path / "m.safetensors")


def test_lora_as_checkpoint_says_where_it_belongs(tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.ones(1, 2)}, tmp_path / "style.safetensors")
    with pytest.raises(ModelFileError, match=r"style\.safetensors.*a LoRA.*models/loras"):
        load(tmp_path / "style.safetensors")


def test_demo_checkpoint(demo_checkpoint: Path) -> None:
    model = load(demo_checkpoint)
    assert model.spec.native_size < 512
    assert model.spec.unet.groups == model.spec.unet.channels[0] // 4
    header = json.loads(load_header(demo_checkpoint))
    assert model.spec.unet.heads == header["unet_heads"]


def load_header(path: Path) -> str:
    from modules.loader.files.state_dict import read_metadata

    metadata = read_metadata(path)
    return metadata.get("lightdiffusion") or metadata["sd_tiny"]
