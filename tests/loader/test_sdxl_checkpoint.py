"""A tiny SDXL checkpoint gives the same networks in every layout; its autoencoder's scale comes from its family."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.core.errors import ModelFileError
from modules.loader.checkpoint import LoadedModel, load_checkpoint
from tests import tiny
from tests.models.oracles import diffusers_unet, diffusers_vae
from tests.models.sdxl_parts import CLIP_G_PREFIX, CLIP_L_PREFIX, sdxl_parts

State = dict[str, Tensor]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
PREFIXES = {"unet": UNET, "text.clip_l": CLIP_L_PREFIX, "text.clip_g": CLIP_G_PREFIX, "vae": VAE}


@pytest.fixture(scope="module")
def state() -> State:
    return tiny.checkpoint_tensors(sdxl=True, dtype=torch.float32)


@pytest.fixture(scope="module")
def parts(state: State) -> dict[str, nn.Module]:
    return sdxl_parts(state)


def load(path: Path, **options: Any) -> LoadedModel:
    return load_checkpoint(path, device="cpu", dtype=torch.float32, **options)


def saved(state: State, path: Path, header: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata=header)
    return path


def networks(model: LoadedModel) -> dict[str, nn.Module]:
    texts = {f"text.{name}": encoder for name, encoder in model.text.module.named_children()}
    return {"unet": model.unet.module, **texts, "vae": model.vae}


def assert_same(model: LoadedModel, state: State) -> None:
    assert list(networks(model)) == list(PREFIXES)
    for name, network in networks(model).items():
        prefix = PREFIXES[name]
        expected = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        found = network.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def save_folder(path: Path, parts: dict[str, nn.Module], scheduler: dict[str, object] | None = None) -> Path:
    for name, module in parts.items():
        module.save_pretrained(path / name)  # type: ignore[operator]
    (path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or {}))
    return path


def in_diffusers_names(parts: dict[str, nn.Module]) -> State:
    return {f"{part}.{name}": weight for part, module in parts.items() for name, weight in module.state_dict().items()}


def ema_only(state: State) -> State:
    return {
        f"model_ema.diffusion_model{name.removeprefix(UNET).replace('.', '')}" if name.startswith(UNET) else name: t
        for name, t in state.items()
    }


def test_single_files(state: State, parts: dict[str, nn.Module], tmp_path: Path) -> None:
    for number, layout in enumerate((state, ema_only(state), in_diffusers_names(parts))):
        assert_same(load(saved(layout, tmp_path / f"{number}.safetensors")), state)
    torch.save({"state_dict": state}, tmp_path / "m.ckpt")
    assert_same(load(tmp_path / "m.ckpt"), state)


def test_folder(state: State, parts: dict[str, nn.Module], tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "xl", parts, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    model = load(folder)
    assert_same(model, state)
    spec = model.spec
    assert (spec.unet, spec.texts, spec.vae.scale_factor) == (tiny.SDXL_UNET, tiny.SDXL_TEXTS, 0.13025)
    assert (spec.family, spec.prediction, spec.zero_terminal_snr) == ("SDXL", "v", True)


@pytest.mark.parametrize(
    ("scheduler", "prediction", "sigmas"),
    [
        ({"prediction_type": "epsilon", "sigma_min": 0.002, "sigma_max": 80.0}, "edm", (0.002, 80.0)),
        ({"prediction_type": "v_prediction", "sigma_max": 120.0}, "edm_v", (0.002, 120.0)),
    ],
)
def test_folders_of_edm_models(
    parts: dict[str, nn.Module],
    scheduler: dict[str, object],
    prediction: str,
    sigmas: tuple[float, float],
    tmp_path: Path,
) -> None:
    folder = save_folder(tmp_path / "edm", parts, {"_class_name": "EDMEulerScheduler"} | scheduler)
    config = json.loads((folder / "vae" / "config.json").read_text())
    config |= {"latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [2.0] * 4, "scaling_factor": 0.5}
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    other = saved({name: t for name, t in tiny.vae(seed=9).state_dict().items()}, tmp_path / "vae.safetensors")
    for spec in (load(folder).spec, load(folder, vae_path=other).spec):
        assert (spec.prediction, spec.sigma_range) == (prediction, sigmas)
        assert (spec.vae.latent_mean, spec.vae.latent_std, spec.vae.scale_factor) == ((1, 2, 3, 4), (2,) * 4, 0.5)


def test_folder_of_a_flow_model(parts: dict[str, nn.Module], tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "mugen", parts, {"_class_name": "FlowMatchEulerDiscreteScheduler"})
    with pytest.raises(ModelFileError, match="mugen.*rectified-flow checkpoint"):
        load(folder)


LONE_UNETS: tuple[Callable[[State, dict[str, nn.Module]], State], ...] = (
    lambda state, _: {name.removeprefix(UNET): t for name, t in state.items() if name.startswith(UNET)},
    lambda _, parts: dict(parts["unet"].state_dict()),
)


@pytest.mark.parametrize("alone", LONE_UNETS, ids=["LDM", "diffusers"])
def test_a_unet_alone_needs_two_text_encoders_and_a_vae(
    alone: Callable[[State, dict[str, nn.Module]], State],
    state: State,
    parts: dict[str, nn.Module],
    tmp_path: Path,
) -> None:
    whole = saved(state, tmp_path / "whole.safetensors")
    unet = saved(alone(state, parts), tmp_path / "unet.safetensors")
    with pytest.raises(ModelFileError, match="unet.safetensors.*alone.*CLIP-L or CLIP-G.*two text encoders.*no VAE"):
        load(unet)
    with pytest.raises(ModelFileError, match="no VAE") as raised:
        load(unet, text_paths=[whole])
    assert "CLIP" not in str(raised.value)
    assert_same(load(unet, text_paths=[whole], vae_path=whole), state)


def test_weights_in_eight_bits(state: State, tmp_path: Path) -> None:
    def eight(name: str, tensor: Tensor) -> Tensor:
        return tensor.to(torch.float8_e4m3fn) if name.startswith(UNET) and tensor.ndim > 1 else tensor

    stored = {name: eight(name, tensor) for name, tensor in state.items()}
    path = saved(stored, tmp_path / "m.safetensors")
    assert_same(load(path), {name: tensor.float() for name, tensor in stored.items()})


def test_inpainting(tmp_path: Path) -> None:
    nine = tiny.unet(replace(tiny.SDXL_UNET, in_channels=9))
    path = saved(tiny.checkpoint_tensors(sdxl=True) | tiny.prefixed(UNET, nine), tmp_path / "m.safetensors")
    assert load(path).spec.inpaint


CLIP_G = tiny.SDXL_TEXTS[1]


def test_the_refiner_is_loaded_on_request_only(tmp_path: Path) -> None:
    path = saved(tiny.refiner_tensors(), tmp_path / "refiner.safetensors")
    with pytest.raises(ModelFileError, match="refiner.safetensors.*cannot start a picture"):
        load(path)
    model = load(path, refiner=True)
    assert model.spec.family == "the SDXL refiner"
    assert list(networks(model)) == ["unet", "text.clip_g", "vae"]
    base = saved(tiny.checkpoint_tensors(sdxl=True), tmp_path / "base.safetensors")
    with pytest.raises(ModelFileError, match="base.safetensors.*not the SDXL refiner: give it with --checkpoint"):
        load(base, refiner=True)


@pytest.mark.parametrize(("prefix", "lacks"), [("first_stage_model.", "no VAE"), ("conditioner.", "no text encoder")])
def test_a_part_of_the_refiner_cannot_be_added(prefix: str, lacks: str, tmp_path: Path) -> None:
    """--vae and --text-encoder are for the checkpoint."""
    rest = {name: tensor for name, tensor in tiny.refiner_tensors().items() if not name.startswith(prefix)}
    with pytest.raises(ModelFileError, match=f"half.safetensors.*{lacks}: choose a file that holds all") as error:
        load(saved(rest, tmp_path / "half.safetensors"), refiner=True)
    assert "--" not in str(error.value)


def test_folder_of_the_refiner(parts: dict[str, nn.Module], tmp_path: Path) -> None:
    unet = diffusers_unet(tiny.REFINER_UNET, pooled=CLIP_G.projection or 0)
    others = {name: parts[name] for name in ("vae", "text_encoder_2")}
    spec = load(save_folder(tmp_path / "refiner", {"unet": unet, **others}), refiner=True).spec
    assert (spec.family, spec.unet, spec.texts) == ("the SDXL refiner", tiny.REFINER_UNET, (CLIP_G,))


def test_the_scale_of_another_vae(state: State, tmp_path: Path) -> None:
    """The family's, unless the VAE states its own in our header or its folder's config."""
    whole = saved(state, tmp_path / "m.safetensors")
    vae = {name.removeprefix(VAE): tensor for name, tensor in state.items() if name.startswith(VAE)}
    bare = saved(vae, tmp_path / "bare.safetensors")
    stated = saved(vae, tmp_path / "stated.safetensors", {"lightdiffusion": '{"scale_factor": 0.25}'})
    folder = tmp_path / "vae"
    module = diffusers_vae(tiny.VAE)
    module.register_to_config(scaling_factor=0.75)
    module.save_pretrained(folder)
    found = [load(whole, vae_path=path).spec.vae.scale_factor for path in (None, bare, stated, folder)]
    assert found == [0.13025, 0.13025, 0.25, 0.75]
    sd1 = tiny.save_checkpoint(tmp_path / "sd1.safetensors")
    assert load(sd1, vae_path=bare).spec.vae.scale_factor == 0.18215
