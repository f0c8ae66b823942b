"""The same weights however they were saved: shapes, wrappers, names, dtypes, scaled fp8, one network per file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.checkpoint import LoadedModel, load_checkpoint
from modules.loader.files.state_dict import read_state_dict
from modules.loader.files.tensor_names import plain_names
from modules.loader.layouts.diffusers import unet_block_names
from modules.loader.layouts.key_maps import UNET_RESNET
from modules.loader.text_encoder import open_text_encoder
from modules.models.configs import TextConfig, UNetConfig, VAEConfig
from modules.text.embeddings import read_embedding
from tests import tiny

State = dict[str, Tensor]
UNET_CONFIG = UNetConfig(channels=(8, 16), depths=(1, 0), res_blocks=1, context_dim=8, heads=1, groups=2)
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


@pytest.fixture(scope="module")
def state() -> State:
    """A checkpoint of a few kilobytes. Its heads and groups follow the rules for files without a header."""
    vae = tiny.vae(VAEConfig(channels=(8, 8), groups=2, res_blocks=1))
    text = tiny.text_model(TextConfig(width=8, layers=2, heads=1, mlp_width=8, vocab_size=64))
    return tiny.prefixed(UNET, tiny.unet(UNET_CONFIG)) | tiny.prefixed(VAE, vae) | tiny.prefixed(TEXT, text)


def part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def saved(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def loaded(path: Path, **others: Any) -> LoadedModel:
    return load_checkpoint(path, device="cpu", dtype=torch.float32, **others)


def assert_same(model: LoadedModel, state: State) -> None:
    for network, prefix in ((model.unet.module, UNET), (tiny.only_text(model), TEXT), (model.vae, VAE)):
        expected = part(state, prefix)
        found = network.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def squeezed(state: State) -> State:
    return {n: t[:, :, 0, 0] if t.ndim == 4 and t.shape[2:] == (1, 1) else t for n, t in state.items()}


def stretched(state: State) -> State:
    return {n: t[:, :, None, None] if t.ndim == 2 and "embedding" not in n else t for n, t in state.items()}


@pytest.mark.parametrize("reshape", [squeezed, stretched])
def test_matrices_and_convolutions_of_one_pixel_are_the_same(
    reshape: Callable[[State], State], state: State, tmp_path: Path
) -> None:
    other = reshape(state)
    assert sum(other[name].shape != state[name].shape for name in state) > 3
    assert_same(loaded(saved(other, tmp_path / "m.safetensors")), state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 3},
        lambda state: {"module": state},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "args": [1, "x"]},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: [state],
        lambda state: (state, {"step": 4}),
        lambda state: {"model": state, "model_ema": {name: tensor * 0 for name, tensor in state.items()}},
        lambda state: {name.replace("diffusion_model.", "diffusion_model._orig_mod."): state[name] for name in state},
        lambda state: {name.replace("transformer.", "transformer.module."): state[name] for name in state},
    ],
)
def test_what_trainers_put_around_a_checkpoint_is_taken_off(
    wrap: Callable[[State], object], state: State, tmp_path: Path
) -> None:
    torch.save(wrap(state), tmp_path / "m.ckpt")
    assert_same(loaded(tmp_path / "m.ckpt"), state)


@pytest.mark.parametrize(
    "rename", [str.upper, str.title, lambda n: n.replace(".", "/"), lambda n: n.replace(".", "\\"), "module.{}".format]
)
def test_separators_and_case_of_names(rename: Callable[[str], str], state: State, tmp_path: Path) -> None:
    path = saved({rename(name): tensor for name, tensor in state.items()}, tmp_path / "m.safetensors")
    assert_same(loaded(path), state)


def test_usual_names_stay_as_they_are() -> None:
    names = [
        "unet.x.lora_A.weight",
        "base_model.model.x.lora_B.weight",
        "RRDB_trunk.0.RDB1.conv1.weight",
        "HRconv.bias",
    ]
    names += ["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "body.0.rdb1.conv1.weight"]
    for name in names:
        assert list(plain_names({name: torch.zeros(1)})) == [name]


def test_unused_types_do_no_harm(state: State, tmp_path: Path) -> None:
    odd = {"a": torch.ones(2, dtype=torch.uint64), "b": torch.ones(2, dtype=torch.complex64), "c": torch.ones(2) > 0}
    path = saved(state | odd, tmp_path / "m.safetensors")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["d"] = {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    assert_same(loaded(path), state)
    assert {"a", "b", "c", "d"} <= read_state_dict(path).keys()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint16, torch.bool, torch.complex64])
def test_weights_of_such_a_type_are_refused_with_the_reason(state: State, dtype: torch.dtype, tmp_path: Path) -> None:
    name = f"{UNET}out.2.weight"
    path = saved(state | {name: torch.ones(state[name].shape).to(dtype)}, tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="out.2.weight.*holds no weights") as raised:
        loaded(path)
    assert "damaged" not in str(raised.value) and path.name in str(raised.value)


def test_another_shape_is_not_called_damage(state: State, tmp_path: Path) -> None:
    path = saved(state | {f"{UNET}out.0.weight": torch.ones(9)}, tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match=r"shape \[9\] where \[8\]") as raised:
        loaded(path)
    assert "damaged" not in str(raised.value)


@pytest.mark.parametrize(("factor", "beside"), [("scale_weight", "scale_input"), ("weight_scale", "comfy_quant")])
@pytest.mark.parametrize("rows", [False, True])
def test_scaled_fp8_is_multiplied_out(state: State, factor: str, beside: str, rows: bool, tmp_path: Path) -> None:
    scaled, expected = dict(state), dict(state)
    scaled[f"{UNET}scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    layers = [name for name in state if name.endswith(("to_q.weight", "fc1.weight", "proj_in.weight"))]
    assert {name.partition(".")[0] for name in layers} == {"model", "cond_stage_model"}
    for number, name in enumerate(layers, start=2):
        scale = torch.arange(1.0, len(state[name]) + 1) if rows else torch.tensor(float(number))
        layer = name.removesuffix("weight")
        scaled |= {name: state[name].to(torch.float8_e4m3fn), layer + factor: scale, layer + beside: torch.ones(1)}
        expected[name] = torch.stack(
            [scaled[name].float()[i] * scale.flatten()[i if rows else 0] for i in range(len(state[name]))]
        )
    assert_same(loaded(saved(scaled, tmp_path / "m.safetensors")), expected)


def test_other_compression_says_so(state: State, tmp_path: Path) -> None:
    layer = f"{UNET}input_blocks.1.1.proj_in."
    blocks = {f"{layer}weight": torch.ones(8, 4, dtype=torch.uint8), f"{layer}weight_scale": torch.ones(8, 2)}
    with pytest.raises(ModelFileError, match="compressed in an unsupported way"):
        loaded(saved(state | blocks, tmp_path / "m.safetensors"))


def diffusers_names(unet: State) -> State:
    """Returns the same UNet under diffusers' names."""
    blocks = {ldm: name for name, ldm in unet_block_names(UNET_CONFIG.attention_levels, UNET_CONFIG.res_blocks).items()}
    inside = {ldm: name for name, ldm in UNET_RESNET.items()}
    renamed: State = {}
    for name, tensor in unet.items():
        block = next(b for b in sorted(blocks, key=len, reverse=True) if name.startswith(f"{b}."))
        rest = name.removeprefix(f"{block}.")
        piece, _, kind = rest.rpartition(".")
        rest = f"{inside[piece]}.{kind}" if ".resnets." in blocks[block] else rest
        renamed[f"{blocks[block]}.{rest}"] = tensor
    return renamed


LONE_UNETS: tuple[Callable[[State], State], ...] = (
    lambda state: part(state, UNET),
    lambda state: {name: tensor for name, tensor in state.items() if name.startswith(UNET)},
    lambda state: {f"diffusion_model.{name}": tensor for name, tensor in part(state, UNET).items()},
    lambda state: diffusers_names(part(state, UNET)),
    lambda state: {f"unet.{name}": tensor for name, tensor in diffusers_names(part(state, UNET)).items()},
)


@pytest.mark.parametrize("alone", LONE_UNETS)
def test_a_unet_alone_is_called_that_and_runs_with_the_others(
    alone: Callable[[State], State], state: State, tmp_path: Path
) -> None:
    unet = saved(alone(state), tmp_path / "unet.safetensors")
    vae, text = (
        saved(part(state, VAE), tmp_path / "v.safetensors"),
        saved(part(state, TEXT), tmp_path / "t.safetensors"),
    )
    with pytest.raises(ModelFileError, match="unet.safetensors.*UNet alone.*--vae.*--text-encoder"):
        loaded(unet)
    with pytest.raises(ModelFileError, match="no VAE.*--vae") as raised:
        loaded(unet, text_path=text)
    assert "--text-encoder" not in str(raised.value)
    assert_same(loaded(unet, vae_path=vae, text_path=text), state)


TEXT_FILES: tuple[Callable[[State], State], ...] = (
    lambda state: part(state, TEXT),
    lambda state: {name.removeprefix("text_model."): tensor for name, tensor in part(state, TEXT).items()},
    lambda state: {f"transformer.{name}": tensor for name, tensor in part(state, TEXT).items()},
    lambda state: part(state, TEXT) | {"text_model.embeddings.position_ids": torch.arange(77)[None]},
    lambda state: state,
)


@pytest.mark.parametrize("write", TEXT_FILES)
def test_another_text_encoder_takes_the_place_of_the_own(
    write: Callable[[State], State], state: State, tmp_path: Path
) -> None:
    other = {name: tensor + 1 if name.startswith(TEXT) else tensor for name, tensor in state.items()}
    text = saved(write(other), tmp_path / "t.safetensors")
    assert_same(loaded(saved(state, tmp_path / "m.safetensors"), text_path=text), other)


def test_a_folder_as_text_encoder(state: State, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    saved(part(state, TEXT), folder / "model.safetensors")
    (folder / "config.json").write_text('{"num_attention_heads": 2, "hidden_act": "gelu"}')
    model = loaded(saved(state, tmp_path / "m.safetensors"), text_path=folder)
    assert (model.spec.texts[0].heads, model.spec.texts[0].activation) == (2, "gelu")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_an_openclip_file_as_text_encoder(prefix: str, tmp_path: Path) -> None:
    own = tiny.text_model(TextConfig(layout="openclip", width=8, layers=2, heads=1, mlp_width=8, vocab_size=64))
    path = saved(tiny.prefixed(prefix, own), tmp_path / "t.safetensors")
    found = open_text_encoder(path).tensors
    assert found.keys() == {f"cond_stage_model.model.{name}" for name in own.state_dict()}


def test_files_that_are_not_text_encoders(state: State, tmp_path: Path) -> None:
    checkpoint, vae = saved(state, tmp_path / "m.safetensors"), saved(part(state, VAE), tmp_path / "v.safetensors")
    with pytest.raises(ModelFileError, match="v.safetensors.* is a VAE and cannot be used as the text encoder"):
        loaded(checkpoint, text_path=vae)
    wide = tiny.text_model(TextConfig(width=16, layers=1, heads=1, mlp_width=8, vocab_size=64)).state_dict()
    with pytest.raises(ModelFileError, match="width 16, but this UNet reads 8"):
        loaded(checkpoint, text_path=saved(wide, tmp_path / "wide.safetensors"))
    with pytest.raises(ModelFileError, match="text encoder.*belongs in models/text_encoders"):
        loaded(saved(part(state, TEXT), tmp_path / "t.safetensors"))


def test_a_vae_in_wrappers(state: State, tmp_path: Path) -> None:
    torch.save({"model": {f"module.{name}": t for name, t in part(state, VAE).items()}}, tmp_path / "v.pt")
    without = {name: tensor for name, tensor in state.items() if not name.startswith(VAE)}
    assert_same(loaded(saved(without, tmp_path / "m.safetensors"), vae_path=tmp_path / "v.pt"), state)


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(2, 8)],
        ({"clip_l": torch.ones(2, 8)},),
        {7: torch.ones(2, 8)},
        {"string_to_param": {"*": torch.ones(2, 8)}, "optimizer": {0: {"exp_avg": torch.zeros(2, 8)}}},
        {"emb_params": torch.ones(1, 2, 8)},
        {"embedding": {"<style>": torch.ones(2, 8, 1)}},
    ],
)
def test_embeddings_in_any_container(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "style.pt")
    assert torch.equal(read_embedding(tmp_path / "style.pt", 8), torch.ones(2, 8))
