"""SDXL's two text encoders from separate files in any order and layout, and the messages when they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.core.errors import LightDiffusionError, ModelFileError, OptionsError
from modules.loader.checkpoint import LoadedModel, load_checkpoint
from tests import tiny
from tests.models.oracles import transformers_text

L_PREFIX, G_PREFIX = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
CLIP_L, CLIP_G = tiny.SDXL_TEXTS
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return tiny.checkpoint_tensors(sdxl=True, dtype=torch.float32)


def part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def saved(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def hugging_face(seed: int) -> nn.Module:
    return tiny.randomise(transformers_text(CLIP_G), seed)


def loaded(path: Path, **options: object) -> LoadedModel:
    return load_checkpoint(path, device="cpu", dtype=torch.float32, **options)  # type: ignore[arg-type]


def texts_of(model: LoadedModel) -> State:
    names = {"clip_l.": L_PREFIX, "clip_g.": G_PREFIX}
    return {names[name[:7]] + name[7:]: tensor for name, tensor in model.text.module.state_dict().items()}


def assert_texts(model: LoadedModel, state: State) -> None:
    found = texts_of(model)
    assert found.keys() == {name for name in state if name.startswith((L_PREFIX, G_PREFIX))}
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


@pytest.fixture
def files(state: State, tmp_path: Path) -> dict[str, Path]:
    """The parts of one SDXL checkpoint in a file each, and the whole."""
    return {
        "whole": saved(state, tmp_path / "whole.safetensors"),
        "unet": saved(part(state, "model.diffusion_model."), tmp_path / "unet.safetensors"),
        "vae": saved(part(state, "first_stage_model."), tmp_path / "vae.safetensors"),
        "l": saved(part(state, L_PREFIX), tmp_path / "l.safetensors"),
        "g": saved(part(state, G_PREFIX), tmp_path / "g.safetensors"),
    }


@pytest.mark.parametrize("names", [("l", "g"), ("g", "l"), ("whole",)])
def test_a_unet_alone_runs_with_both_encoders_in_any_order(
    names: tuple[str, ...], state: State, files: dict[str, Path]
) -> None:
    model = loaded(files["unet"], text_paths=[files[name] for name in names], vae_path=files["vae"])
    assert_texts(model, state)


@pytest.mark.parametrize("prefix", [L_PREFIX, G_PREFIX])
def test_one_encoder_takes_the_place_of_its_like(
    prefix: str, state: State, files: dict[str, Path], tmp_path: Path
) -> None:
    other = {name: tensor + 1 if name.startswith(prefix) else tensor for name, tensor in state.items()}
    text = saved(part(other, prefix), tmp_path / "other.safetensors")
    assert_texts(loaded(files["whole"], text_paths=[text]), other)


def test_clip_g_with_hugging_faces_names(files: dict[str, Path], tmp_path: Path) -> None:
    theirs = hugging_face(9)
    text = saved(dict(theirs.state_dict()), tmp_path / "g_hf.safetensors")
    model = loaded(files["unet"], text_paths=[text, files["l"]], vae_path=files["vae"])
    found = model.text.module.get_submodule("clip_g").state_dict()
    assert torch.equal(found["text_projection"], theirs.state_dict()["text_projection.weight"].t())


def test_a_diffusers_folder_holds_both(state: State, files: dict[str, Path], tmp_path: Path) -> None:
    theirs = hugging_face(9)
    for name, weights, heads in (
        ("text_encoder", part(state, L_PREFIX), 1),
        ("text_encoder_2", dict(theirs.state_dict()), 1),
    ):
        (tmp_path / "folder" / name).mkdir(parents=True)
        saved(weights, tmp_path / "folder" / name / "model.safetensors")
        config = {"num_attention_heads": heads, "hidden_act": "gelu" if name.endswith("2") else "quick_gelu"}
        (tmp_path / "folder" / name / "config.json").write_text(json.dumps(config))
    model = loaded(files["unet"], text_paths=[tmp_path / "folder"], vae_path=files["vae"])
    assert [text.activation for text in model.spec.texts] == ["quick_gelu", "gelu"]
    found = model.text.module.get_submodule("clip_l").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in part(state, L_PREFIX).items())


def test_a_clip_g_without_its_projection_is_named(state: State, files: dict[str, Path], tmp_path: Path) -> None:
    half = {name: tensor for name, tensor in part(state, G_PREFIX).items() if name != "text_projection"}
    text = saved(half, tmp_path / "half.safetensors")
    with pytest.raises(ModelFileError, match="^half.safetensors: This CLIP-G lacks text_projection"):
        loaded(files["unet"], text_paths=[files["l"], text], vae_path=files["vae"])


Paths = dict[str, Path]


@pytest.mark.parametrize(
    ("load", "kind", "message"),
    [
        (
            lambda f: loaded(f["unet"]),
            ModelFileError,
            r"no CLIP-L or CLIP-G \(SDXL needs two text encoders\) and no VAE.*--text-encoder NAME --text",
        ),
        (
            lambda f: loaded(f["unet"], text_paths=[f["l"]], vae_path=f["vae"]),
            ModelFileError,
            r"no CLIP-G \(SDXL needs two text encoders\)\. Add .* --text-encoder NAME \(",
        ),
        (lambda f: loaded(f["whole"], text_paths=[f["l"], f["l"]]), OptionsError, "hold CLIP-L: SDXL needs one"),
        (
            lambda f: loaded(f["whole"], text_paths=[f["vae"]]),
            ModelFileError,
            "is a VAE and cannot be used",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(
    load: Callable[[Paths], LoadedModel], kind: type[LightDiffusionError], message: str, files: Paths
) -> None:
    with pytest.raises(kind, match=message):
        load(files)


def test_sd1_takes_clip_l_of_an_sdxl_checkpoint(files: Paths, state: State, tmp_path: Path) -> None:
    """The encoder has the same shape, so other programs' users do this; CLIP-G is of no use to SD1."""
    checkpoint = tiny.save_checkpoint(tmp_path / "sd1.safetensors", dtype=torch.float32)
    with pytest.raises(ModelFileError, match="width 32, but this UNet reads 64"):
        loaded(checkpoint, text_paths=[files["whole"]])
    with pytest.raises(OptionsError, match="one text encoder"):
        loaded(checkpoint, text_paths=[files["l"], files["g"]])


@pytest.mark.parametrize("sdxl", [False, True])
def test_a_text_encoder_without_its_table_is_refused(tmp_path: Path, *, sdxl: bool) -> None:
    checkpoint = tiny.save_checkpoint(tmp_path / "m.safetensors", sdxl=sdxl)
    text = saved({"cond_stage_model.transformer.text_model.x": torch.zeros(())}, tmp_path / "t.safetensors")
    with pytest.raises(ModelFileError, match="text encoder"):
        loaded(checkpoint, text_paths=[text])
