"""Malicious model files: each is quickly read, or refused with one sentence."""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from modules.controlnet.load import load_controlnet
from modules.core.errors import ModelFileError
from modules.loader.checkpoint import load_checkpoint, open_vae
from modules.loader.detection.facts import header_facts
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.detection.vae_config import vae_config
from modules.loader.files.open_file import naming
from modules.loader.load_weights import empty_weights, fill_network
from modules.loader.patcher import ModelPatcher
from modules.loader.text_encoder import open_text_encoders
from modules.loader.upscaler import load_rrdbnet
from modules.lora.apply import lora_patches
from modules.models.configs import TextConfig, UNetConfig, VAEConfig
from modules.models.vae import AutoencoderKL
from modules.text.embeddings import read_embedding
from tests import tiny
from tests.loader.detection.detecting import detect
from tests.upscalers import esrgan_tensors

CPU = torch.device("cpu")
UNET = UNetConfig(channels=(8, 16), depths=(1, 0), res_blocks=1, context_dim=8, heads=1, groups=2)
VAE = VAEConfig(channels=(8, 8), groups=2, res_blocks=1)
TEXT = TextConfig(width=8, layers=2, heads=1, mlp_width=8, vocab_size=64)
SECONDS = 20.0  # for any one file

JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 2**40, 2**63, 10**400, "", "x", "F32", [], {}, [[]], [None], ["x"], [True, 1]),
    *([2**40, 0, 2**40], [0], [1], [1] * 40, [10**30, 0], {"a": {"b": []}}, "9" * 5000, "\x1b[31m\n", {"1": 1}),
)
NAMES = (
    *("", ".", "body.", "body.x.rdb1.conv1.weight", "model.99999999999.weight", "model." + "9" * 5000 + ".weight"),
    *("input_blocks.99999999.0.in_layers.2.weight", "model.diffusion_model.input_blocks.99999999.0.op.weight"),
    *("down_blocks.99999999.resnets.0.conv1.weight", "encoder.down_blocks.9.x", "x.lora_down.weight", "x.scale_weight"),
    *(
        "cond_stage_model.transformer.text_model.encoder.layers.999999999.mlp.fc1.weight",
        "lora_controlnet",
        "difference",
    ),
    *(
        "first_stage_model.encoder.down.0.block.999999999.conv1.weight",
        "string_to_param.*",
        "a/b\\c",
        "module.",
        "lora_controlnet",
    ),
)
HEADERS = (
    *('{"r": [1], "lora_alpha": {}}', '{"rank_pattern": {"(a+)+$": 4}}', '{"rank_pattern": {"(": 4}}', "[" * 5000),
    *('{"rank_pattern": [1], "r": "x"}', '{"r": -4, "lora_alpha": 4, "use_rslora": true}', '{"r": NaN}', "[]", "1"),
    *('{"unet_heads": 0}', '{"unet_heads": 3}', '{"unet_groups": "x"}', '{"vae_groups": [1]}', '{"clip_heads": true}'),
    *('{"scale_factor": 0}', '{"native_size": 1' + "0" * 400 + "}", '{"prediction_type": {}}', '{"unet_groups": 7}'),
)


def read_vae(path: Path) -> None:
    """Reads a VAE file's configuration and weights, without a checkpoint."""
    weights = open_vae(path)
    with naming(path):
        with empty_weights():
            vae = AutoencoderKL(vae_config(weights.tensors, header_facts(weights.metadata)))
        fill_network(vae, weights.tensors, CPU, torch.float32, weights.drop_pages, "VAE")


class Models:
    """Small networks of each kind, and a reader for each kind of file."""

    def __init__(self) -> None:
        networks = {
            "model.diffusion_model.": tiny.unet(UNET),
            "first_stage_model.": tiny.vae(VAE),
            "cond_stage_model.transformer.": tiny.text_model(TEXT),
        }
        self.checkpoint = {k: v for prefix, net in networks.items() for k, v in tiny.prefixed(prefix, net).items()}
        self.header = {"lightdiffusion": '{"clip_heads": 1, "unet_heads": 1, "unet_groups": 2, "vae_groups": 2}'}
        self.spec: ModelSpec = detect(self.checkpoint, self.header)
        self.unet, self.text = (ModelPatcher(networks[name], CPU) for name in (list(networks)[0], list(networks)[2]))
        self.files: dict[str, dict[str, Tensor]] = {
            "checkpoint": self.checkpoint,
            "vae": networks["first_stage_model."].state_dict(),
            "text": networks["cond_stage_model.transformer."].state_dict(),
            "controlnet": tiny.controlnet(UNET).state_dict(),
            "control-LoRA": self.control_lora(),
            "difference": tiny.controlnet(UNET).state_dict() | {"difference": torch.zeros(1)},
            "upscaler": esrgan_tensors(4, 2, 1),
            "embedding": {"emb_params": torch.randn(2, 8)},
            "lora": {
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.randn(2, 8),
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight": torch.randn(8, 2),
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.randn(2, 8),
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.randn(8, 2),
                "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(2.0),
                "lora_te_text_model_encoder_layers_0_mlp_fc2.hada_w1_a": torch.randn(8, 2),
                "lora_te_text_model_encoder_layers_0_mlp_fc2.hada_w1_b": torch.randn(2, 8),
                "lora_te_text_model_encoder_layers_0_mlp_fc2.hada_w2_a": torch.randn(8, 2),
                "lora_te_text_model_encoder_layers_0_mlp_fc2.hada_w2_b": torch.randn(2, 8),
                "lora_te_text_model_encoder_layers_1_mlp_fc1.lokr_w1": torch.randn(4, 2),
                "lora_te_text_model_encoder_layers_1_mlp_fc1.lokr_w2": torch.randn(2, 4),
            },
        }
        load = {"device": CPU, "dtype": torch.float32}
        self.readers: dict[str, Callable[[Path], object]] = {
            "checkpoint": partial(load_checkpoint, **load),
            "vae": read_vae,
            "text": lambda path: open_text_encoders([path]),
            **dict.fromkeys(("controlnet", "control-LoRA", "difference"), self.controlnet),
            "upscaler": lambda path: load_rrdbnet(path, CPU),
            "embedding": lambda path: read_embedding(path, 8),
            "lora": self.merge,
        }

    def control_lora(self) -> dict[str, Tensor]:
        """Returns the parts of a ControlNet that a UNet lacks, and a change to one UNet layer."""
        layer = "input_blocks.1.1.transformer_blocks.0.attn1.to_q."
        change = {"lora_controlnet": torch.zeros(1), f"{layer}up": torch.ones(8, 2), f"{layer}down": torch.ones(2, 8)}
        own = ("input_hint_block.", "zero_convs.", "middle_block_out.")
        return change | {n: t for n, t in tiny.controlnet(UNET).state_dict().items() if n.startswith(own)}

    def controlnet(self, path: Path) -> object:
        return load_controlnet(path, self.spec, CPU, torch.float32, base=self.unet.pristine())

    def merge(self, path: Path) -> None:
        patches = lora_patches(path, self.unet, self.text, self.spec)
        for patcher, changes in ((self.unet, patches.unet), (self.text, patches.text)):
            twin = patcher.clone()
            twin.add_patches(dict(changes), 1.0)
            twin.apply()


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


def parse(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def change(header: dict[str, Any], chance: random.Random) -> None:
    """Makes one random change to the header: names, types, shapes, offsets or metadata."""
    name = chance.choice([name for name, entry in header.items() if name != "__metadata__" and type(entry) is dict])
    entry = header[name]
    places = entry.get("data_offsets")
    places = places if isinstance(places, list) and len(places) == 2 and type(places[1]) is int else [0, 4]
    match chance.randrange(9):
        case 0:
            header[chance.choice(NAMES)] = header.pop(name)
        case 1:
            header[name] = chance.choice(JUNK)
        case 2:
            entry[chance.choice(["dtype", "shape", "data_offsets"])] = chance.choice(JUNK)
        case 3:
            entry["dtype"] = chance.choice(["U64", "C64", "F4", "BOOL", "F8_E8M0", "I8", "F64", "F16", "nonsense"])
        case 4:  # the same values in another shape
            count = (places[1] - places[0]) // 4
            entry["shape"] = chance.choice([[count], [1, count], [count, 1, 1], [1] * 3 + [count]])
        case 5:  # no values at all, or one
            start = places[0]
            entry["shape"] = chance.choice([[0], [0, 8], [2**40, 0], [2**40, 0, 2**40], []])
            entry["data_offsets"] = [start, start + 4 * (entry["shape"] == [])]
        case 6:
            key = chance.choice(["lightdiffusion", "lora_adapter_metadata", "modelspec.prediction_type", "x"])
            header["__metadata__"] = {key: chance.choice(HEADERS)}
        case 7:
            header["__metadata__"] = chance.choice(JUNK)
        case _:
            del header[name]
    if not any(type(entry) is dict for name, entry in header.items() if name != "__metadata__"):
        header["x"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def mutated(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return data[: chance.randrange(len(data))]
    if chance.random() < 0.15:
        content = bytearray(data)
        for _ in range(chance.choice([1, 3])):
            content[chance.randrange(min(len(content), 600))] = chance.randrange(256)
        return bytes(content)
    header, body = parse(data)
    for _ in range(chance.choice([1, 1, 1, 2])):
        change(header, chance)
    return packed(header, body)


def read(models: Models, kind: str, path: Path) -> str:
    """Returns the message of a ModelFileError, or "" on success; other errors fail the test."""
    began = time.perf_counter()
    try:
        models.readers[kind](path)
        return ""
    except ModelFileError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 2500
        return message
    finally:
        assert time.perf_counter() - began < SECONDS


@pytest.mark.parametrize(
    ("kind", "count"),
    [("checkpoint", 120), ("vae", 120), ("text", 400), ("controlnet", 100), ("control-LoRA", 100), ("difference", 60)]
    + [("upscaler", 400), ("embedding", 1200), ("lora", 400)],
)
def test_mutated_headers_are_one_sentence(models: Models, kind: str, count: int, tmp_path: Path) -> None:
    path, chance = tmp_path / "m.safetensors", random.Random(kind)
    data = save({name: tensor.contiguous() for name, tensor in models.files[kind].items()}, metadata=models.header)
    path.write_bytes(data)
    assert read(models, kind, path) == ""
    answers: list[str] = []
    for _ in range(count):
        path.write_bytes(mutated(data, chance))
        answers.append(read(models, kind, path))
    refused = len([answer for answer in answers if answer])
    assert count // 4 < refused


@pytest.mark.parametrize("kind", ["embedding", "lora", "upscaler", "vae"])
def test_mutated_pickles_are_one_sentence(models: Models, kind: str, tmp_path: Path) -> None:
    path, chance = tmp_path / "m.pt", random.Random(kind)
    tensors = models.files[kind]
    for _ in range(60):
        name = chance.choice(list(tensors))
        tensor = tensors[name]
        empty, wrapped = tensor.flatten()[:0], chance.choice([[tensor], (tensor, 1), "x", None])
        odd = chance.choice([tensor.sum(), tensor.int(), tensor.to_sparse(), empty, wrapped])
        content: Any = tensors | {name: odd}
        for _ in range(chance.randrange(3)):
            content = chance.choice([[content], {"model": content}, {7: content}, (content, {"epoch": 3})])
        torch.save(content, path, _use_new_zipfile_serialization=chance.random() < 0.7)
        read(models, kind, path)


def test_containers_that_hold_each_other_end(models: Models, tmp_path: Path) -> None:
    """Shared lists expand to 10^20 entries, and a dict may contain itself."""
    nested: Any = [torch.ones(2, 8)]
    for _ in range(20):
        nested = [nested] * 10
    endless: dict[str, Any] = {"x": torch.ones(2, 8)}
    endless["again"] = endless
    itself: list[Any] = []
    itself.append(itself)
    deep: Any = {"x": torch.ones(2, 8)}
    for _ in range(100):
        deep = {"a": deep, "b": 1}
    for content in (nested, endless, itself, deep):
        torch.save(content, tmp_path / "m.pt")
        assert read(models, "embedding", tmp_path / "m.pt")


def test_a_tensor_larger_than_its_file_is_refused(models: Models, tmp_path: Path) -> None:
    """With strides of 0, a single value can claim a terabyte."""
    torch.save({"emb_params": torch.ones(1).expand(2**38)}, tmp_path / "m.pt")
    assert "larger than the file" in read(models, "embedding", tmp_path / "m.pt")


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(.*)*x", "((.)*)*!", "(", "a{99999999999}", "x" * 1000, "(?<=a)b", r"(a)\1"]
)
def test_hostile_patterns_of_a_lora_do_not_hang(models: Models, pattern: str, tmp_path: Path) -> None:
    config = json.dumps({"r": 4, "lora_alpha": 8, "rank_pattern": {pattern: 8}})
    data = save(models.files["lora"] | {"a" * 5000 + "!.lora_A.weight": torch.ones(2, 2)})
    header, body = parse(data)
    header["__metadata__"] = {"lora_adapter_metadata": config}
    (tmp_path / "m.safetensors").write_bytes(packed(header, body))
    assert "LoRA configuration" in read(models, "lora", tmp_path / "m.safetensors")


def test_deep_headers(models: Models, tmp_path: Path) -> None:
    for text in (b"[" * 100_000, b'{"a":' * 100_000, b'{"__metadata__": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"):
        (tmp_path / "m.safetensors").write_bytes(packed(text, b""))
        assert "nested" in read(models, "lora", tmp_path / "m.safetensors")
