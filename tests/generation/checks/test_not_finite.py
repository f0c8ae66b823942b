"""Tests pictures of NaN: the error message names the bad file and suggests only options that are not set yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.core.errors import LightDiffusionError, ModelFileError, OptionsError
from modules.generation import latents
from modules.generation.checks.not_finite import NotFinite
from modules.generation.options import ControlChoice, GenerationOptions, InitImage, LoraChoice
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests import tiny_project

REQUEST = GenerationOptions(prompt="x", width=64, height=64, steps=1, seed=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("nan"))


def broken(path: Path, target: Path, name: str, value: float = float("nan")) -> str:
    """Copies a model file with one bad number in it."""
    state = load_file(path)
    state[name].view(-1)[0] = value
    save_file(state, target)
    return str(target)


def failure(root: Path, options: GenerationOptions) -> LightDiffusionError:
    with pytest.raises(LightDiffusionError) as raised:
        list(generate(options, Session(tiny_project.session_at(root).folders, device="cpu")))
    return raised.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.diffusion_model.out.2.bias", ["the UNet's out.2.bias"]),
        ("first_stage_model.decoder.conv_out.bias", ["the VAE's decoder.conv_out.bias"]),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            ["the text encoder's clip_l.text_model.final_layer_norm.bias"],
        ),
    ],
)
def test_the_checkpoint_and_its_weight_are_named(
    root: Path, tmp_path: Path, name: str, words: list[str], value: float
) -> None:
    path = broken(root / "models/checkpoints/tiny.safetensors", tmp_path / "nan.safetensors", name, value)
    error = failure(root, GenerationOptions(**{**vars(REQUEST), "checkpoint": path}))
    assert type(error) is ModelFileError and error.exit_code == 3
    assert all(word in str(error) for word in ["nan.safetensors", "not numbers", *words])
    assert "--" not in str(error)


def other_vae(root: Path, folder: Path) -> GenerationOptions:
    state = load_file(root / "models/checkpoints/tiny.safetensors")
    prefix = "first_stage_model."
    save_file({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}, folder / "v.safetensors")
    vae = broken(folder / "v.safetensors", folder / "bad.safetensors", "encoder.conv_in.bias")
    # Only encoding uses the bad number.
    init = InitImage(image=root / "photo.png", denoise=0.9)
    return GenerationOptions(**{**vars(REQUEST), "vae": vae, "init": init})


def other_text_encoder(root: Path, folder: Path) -> GenerationOptions:
    name = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    text = broken(root / "models/checkpoints/tiny.safetensors", folder / "bad.safetensors", name)
    return GenerationOptions(**{**vars(REQUEST), "text_encoders": (text,)})


def control(root: Path, folder: Path) -> GenerationOptions:
    name = "control_model.middle_block_out.0.bias"
    net = root / "models/controlnet/edges.safetensors"
    name = name if name in load_file(net) else name.removeprefix("control_model.")
    choice = ControlChoice(name=broken(net, folder / "bad.safetensors", name), image=root / "photo.png")
    return GenerationOptions(**{**vars(REQUEST), "controls": (choice,)})


@pytest.mark.parametrize(
    ("request_of", "network"), [(other_vae, "VAE"), (other_text_encoder, "text encoder"), (control, "ControlNet")]
)
def test_files_beside_the_checkpoint_are_named(
    root: Path, tmp_path: Path, request_of: Callable[[Path, Path], GenerationOptions], network: str
) -> None:
    error = failure(root, request_of(root, tmp_path))
    assert type(error) is ModelFileError
    assert "bad.safetensors" in str(error) and f"the {network}'s" in str(error)


def test_an_overflowing_lora_is_reported_with_its_strength(root: Path, tmp_path: Path) -> None:
    huge = {name: tensor * 3e18 for name, tensor in load_file(root / "models/loras/ink.safetensors").items()}
    save_file(huge, tmp_path / "huge.safetensors")
    lora = LoraChoice(name=str(tmp_path / "huge.safetensors"), strength=20.0)
    error = failure(root, GenerationOptions(**{**vars(REQUEST), "loras": (lora,)}))
    assert isinstance(error, OptionsError) and "lower their strength" in str(error)


def test_good_files_give_advice_that_is_not_followed_already(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise NotFinite("nan")

    monkeypatch.setattr(latents, "_finite", nothing)
    error = failure(root, GenerationOptions(**{**vars(REQUEST), "cfg": 1.0}))
    assert isinstance(error, NotFinite) and error.exit_code == 2
    assert "another --vae" in str(error) and "--dtype" not in str(error) and "--cfg" not in str(error)


def test_float16_is_advised_against(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> torch.Tensor:
        raise NotFinite("nan")

    session = Session(tiny_project.session_at(root).folders, device="cpu", dtype="bfloat16")
    monkeypatch.setattr(latents, "_finite", nothing)
    with pytest.raises(NotFinite, match="--dtype float32, another --vae, a lower --cfg"):
        list(generate(REQUEST, session))
