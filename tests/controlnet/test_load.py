"""Every file layout gives the same network (checked against diffusers' ControlNetModel); other families are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.controlnet.load import load_controlnet
from modules.core.errors import ModelFileError
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.patcher import ModelPatcher
from modules.models.configs import UNetConfig
from modules.models.controlnet import ControlNet
from tests import tiny

SD2_UNET = replace(tiny.SD2_UNET, context_dim=96)
CONFIGS = {"sd1": tiny.SD1_UNET, "sd2": SD2_UNET}


def spec(unet: UNetConfig = tiny.SD1_UNET, family: str = "SD1.x") -> ModelSpec:
    return ModelSpec(
        unet=unet,
        vae=tiny.VAE,
        texts=(tiny.SD1_TEXT,),
        family=family,
        prediction="epsilon",
        zero_terminal_snr=False,
        native_size=512,
        inpaint=False,
    )


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)
    return path


def load(path: Path, model: ModelSpec | None = None, **options: object) -> ControlNet:
    return load_controlnet(path, model or spec(), "cpu", torch.float32, **options)  # type: ignore[arg-type]


def inputs(config: UNetConfig, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, config.in_channels, 8, 8, generator=generator)
    hint = torch.rand(2, 3, 64, 64, generator=generator)
    context = torch.randn(2, 7, config.context_dim, generator=generator)
    return x, hint, torch.tensor([801.0, 20.0]), context


def oracle(config: UNetConfig) -> nn.Module:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.ControlNetModel(
        block_out_channels=config.channels,
        cross_attention_dim=config.context_dim,
        attention_head_dim=[config.heads_at(channels) for channels in config.channels],
        norm_num_groups=config.groups,
        use_linear_projection=config.linear_projection,
        conditioning_embedding_out_channels=(16, 32, 96, 256),
    )
    return tiny.randomise(model, 4)


def oracle_residuals(model: nn.Module, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> list[Tensor]:
    down, middle = model(x, timesteps, encoder_hidden_states=context, controlnet_cond=hint, return_dict=False)
    return [*down, middle]


@pytest.mark.parametrize("kind", CONFIGS)
def test_diffusers_file_equals_diffusers(kind: str, tmp_path: Path) -> None:
    config = CONFIGS[kind]
    model = oracle(config)
    network = load(save(tmp_path / "net.safetensors", model.state_dict()), spec(config))
    with torch.inference_mode():
        expected = oracle_residuals(model, *inputs(config))
        actual = network(*inputs(config))
    assert len(actual) == len(expected) == 13
    for ours, theirs in zip(actual, expected, strict=True):
        assert theirs.abs().max() > 0.1
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_diffusers_folder(tmp_path: Path) -> None:
    model = oracle(tiny.SD1_UNET)
    folder = tmp_path / "net"
    folder.mkdir()
    save(folder / "diffusion_pytorch_model.safetensors", model.state_dict())
    with torch.inference_mode():
        expected = oracle_residuals(model, *inputs(tiny.SD1_UNET))
        actual = load(folder)(*inputs(tiny.SD1_UNET))
    assert all((ours - theirs).abs().max() < 1e-4 for ours, theirs in zip(actual, expected, strict=True))


def cldm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"control_model.{name}": tensor for name, tensor in tensors.items()}


def whole_training_checkpoint(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return cldm(tensors) | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(64, 4, 3, 3)}


@pytest.mark.parametrize("layout", [dict, cldm, whole_training_checkpoint])
@pytest.mark.parametrize("kind", CONFIGS)
def test_cldm_file(kind: str, layout: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path) -> None:
    config = CONFIGS[kind]
    weights = tiny.controlnet(config).state_dict()
    network = load(save(tmp_path / "net.safetensors", layout(weights)), spec(config))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_pickled_file_in_half_precision(tmp_path: Path) -> None:
    weights = {name: tensor.half() for name, tensor in tiny.controlnet().state_dict().items()}
    torch.save(cldm(weights), tmp_path / "net.pth")
    network = load_controlnet(tmp_path / "net.pth", spec(), "cpu", torch.float16)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_matrices_for_projections_become_convolutions(tmp_path: Path) -> None:
    weights = tiny.controlnet().state_dict()
    flat = {
        name: tensor.flatten(1) if ".proj_" in name and tensor.ndim == 4 else tensor for name, tensor in weights.items()
    }
    network = load(save(tmp_path / "net.safetensors", flat))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def shared_names(weights: dict[str, Tensor]) -> list[str]:
    return [name for name in weights if not name.startswith(("zero_convs.", "input_hint_block.", "middle_block_out."))]


@pytest.mark.parametrize("base_channels", [4, 9])
def test_difference_file(base_channels: int, tmp_path: Path) -> None:
    base = tiny.unet(replace(tiny.SD1_UNET, in_channels=base_channels)).state_dict()
    weights = tiny.controlnet().state_dict()
    own = {name: base[name] for name in shared_names(weights)}
    own["input_blocks.0.0.weight"] = own["input_blocks.0.0.weight"][:, :4]
    stored = {name: tensor - own[name] if name in own else tensor for name, tensor in weights.items()}
    path = save(tmp_path / "net.safetensors", cldm(stored) | {"difference": torch.tensor(1.0)})
    network = load(path, base=base)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelFileError, match="only differences from a UNet"):
        load(path)


@pytest.mark.parametrize("base_channels", [4, 9])
def test_control_lora(base_channels: int, tmp_path: Path) -> None:
    base = tiny.unet(replace(tiny.SD1_UNET, in_channels=base_channels)).state_dict()
    own = tiny.controlnet().state_dict()
    file, expected = {"lora_controlnet": torch.tensor([])}, dict(own)
    for index, name in enumerate(shared_names(own)):
        weight = base[name][:, :4] if name == "input_blocks.0.0.weight" else base[name]
        if weight.ndim == 1:
            expected[name] = weight if name.endswith("bias") else own[name]
            file |= {} if name.endswith("bias") else {name: own[name]}
            continue
        generator = torch.Generator().manual_seed(index)
        up = torch.randn(weight.shape[0], 2, generator=generator)
        down = torch.randn(2, *weight.shape[1:], generator=generator) * 0.1
        file |= {name.replace(".weight", ".up"): up, name.replace(".weight", ".down"): down}
        expected[name] = (weight.double() + (up.double() @ down.double().flatten(1)).reshape(weight.shape)).float()
    file |= {name: tensor for name, tensor in own.items() if name not in shared_names(own)}
    network = load(save(tmp_path / "net.safetensors", file), base=base)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5)
    assert all(
        tensor.data_ptr() != base[name].data_ptr() for name, tensor in network.state_dict().items() if name in base
    )


def test_pristine_weights_are_the_base_even_while_a_lora_is_merged() -> None:
    from modules.lora.weights import Difference

    patcher = ModelPatcher(tiny.unet(), "cpu")
    before = patcher.module.state_dict()["out.2.bias"].clone()
    patcher.add_patches({"out.2.bias": [Difference(difference=torch.ones(4))]}, 1.0)
    patcher.apply()
    pristine = patcher.pristine()
    assert torch.equal(pristine["out.2.bias"], before)
    assert pristine.keys() == patcher.module.state_dict().keys()


def test_heads_and_groups_of_the_header(tmp_path: Path) -> None:
    weights = tiny.controlnet().state_dict()
    header = {"lightdiffusion": json.dumps({"unet_heads": 4, "unet_groups": 8})}
    config = load(save(tmp_path / "net.safetensors", weights, header)).config
    assert (config.heads, config.groups) == (4, 8)
    plain = load(save(tmp_path / "plain.safetensors", weights)).config
    assert plain == tiny.SD1_UNET


@pytest.mark.parametrize(("width", "family"), [(1024, "SD2.x"), (2048, "SDXL"), (96, "a model of context width 96")])
def test_other_families_are_named(width: int, family: str, tmp_path: Path) -> None:
    weights = tiny.controlnet(replace(tiny.SD1_UNET, context_dim=width)).state_dict()
    path = save(tmp_path / "net.safetensors", cldm(weights))
    with pytest.raises(ModelFileError) as raised:
        load(path, spec(replace(tiny.SD1_UNET, context_dim=768)))
    assert str(raised.value) == (
        f"net.safetensors cannot be used. It was made for {family}, this checkpoint is SD1.x; "
        "choose a ControlNet made for SD1.x."
    )


def test_sdxl_is_named_by_its_keys(tmp_path: Path) -> None:
    weights = oracle(tiny.SD1_UNET).state_dict() | {"add_embedding.linear_1.weight": torch.zeros(4, 4)}
    with pytest.raises(ModelFileError, match="made for SDXL"):
        load(save(tmp_path / "net.safetensors", weights))


def test_same_context_but_other_widths_is_refused(tmp_path: Path) -> None:
    weights = tiny.controlnet(replace(tiny.SD1_UNET, channels=(32, 64, 128, 128))).state_dict()
    with pytest.raises(
        ModelFileError, match=r"has shape .* where this checkpoint \(a small SD1.x of context width 64\)"
    ):
        load(save(tmp_path / "net.safetensors", weights))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: {"ip_adapter.1.to_k.weight": torch.zeros(2)}, "an IP-Adapter, not a ControlNet"),
        (lambda weights: {"lora_unet_x.lora_up.weight": torch.zeros(2)}, "a LoRA, not a ControlNet"),
        (lambda weights: weights | {"control_type_embedding": torch.zeros(2)}, "a union ControlNet of another"),
        (lambda weights: {k: v for k, v in weights.items() if k != "zero_convs.3.0.bias"}, "lacks zero_convs.3.0.bias"),
        (lambda weights: weights | {"stray": torch.zeros(2)}, "unexpected weight .stray"),
    ],
)
def test_incomplete_controlnets_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "net.safetensors", change(tiny.controlnet().state_dict()))
    with pytest.raises(ModelFileError, match=words) as raised:
        load(path)
    assert str(raised.value).startswith("net.safetensors")
