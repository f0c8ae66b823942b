"""Reading model files: values, mapping, and one clear sentence for each kind of bad file."""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import ModelFileError
from modules.loader.files.state_dict import open_weights, read_metadata, read_state_dict

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn]


class Exploit:
    """Runs a command when unpickled by an unsafe loader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def message(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    return text


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_safetensors_values_and_types(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "a.weight": torch.randn(3, 5).to(dtype),
        "b": torch.randn(()).to(dtype),
        "none": torch.zeros(0, 4).to(dtype),
    }
    save_file(tensors | {"ids": torch.arange(7)}, tmp_path / "m.safetensors", metadata={"hello": "world"})
    read = read_state_dict(tmp_path / "m.safetensors")
    assert read["ids"].tolist() == list(range(7))
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype and torch.equal(read[name].float(), tensor.float())
    assert read_metadata(tmp_path / "m.safetensors") == {"hello": "world"} | (
        {"format": "pt"} if "format" in read_metadata(tmp_path / "m.safetensors") else {}
    )


def test_writing_to_a_mapped_tensor_never_changes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.ones(4096, 16)}, path)
    before = path.read_bytes()
    read_state_dict(path)["w"].mul_(7)
    written = read_state_dict(path)["w"]
    written.fill_(3)
    assert written.eq(3).all()
    assert path.read_bytes() == before
    assert read_state_dict(path)["w"].eq(1).all()


def test_tensors_are_mapped_not_read(tmp_path: Path) -> None:
    """Two tensors lie as far apart in memory as in the file."""
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.randn(1000), "b": torch.randn(1000)}, path)
    read = read_state_dict(path)
    assert abs(read["a"].data_ptr() - read["b"].data_ptr()) == 4000


def test_dropped_pages_come_back(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    expected = torch.randn(2000, 100)
    save_file({"a": expected}, path)
    weights = open_weights(path)
    assert torch.equal(weights.tensors["a"], expected)
    weights.drop_pages()
    assert torch.equal(weights.tensors["a"], expected)


def test_unaligned_data_is_read(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    text += b" " * ((3 - len(text)) % 8)  # leaves the data three bytes off
    path = write_raw(tmp_path / "m.safetensors", text, struct.pack("<ff", 1.5, -2.0))
    assert read_state_dict(path)["w"].tolist() == [1.5, -2.0]


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    assert "no model file" in message(tmp_path / "nothing.safetensors")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\0\1")
    assert ".safetensors" in message(tmp_path / "model.gguf")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"  \n<html lang=en>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"Access to this model is restricted. " * 50, "text file"),
    ],
)
def test_files_that_are_not_models(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    (tmp_path / f"m{suffix}").write_bytes(content)
    assert words in message(tmp_path / f"m{suffix}")


def test_truncated_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.randn(1000), "b": torch.randn(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "cut off" in message(path)
    path.write_bytes(whole[:40])
    assert "cut off" in message(path)
    path.write_bytes(whole[:5])
    assert "damaged" in message(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{ not json at all, \x00\x01",
        b"[1, 2, 3]",
        {"w": {"dtype": "F32", "shape": [2]}},
        {"w": {"dtype": 4, "shape": [2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"w": 5},
    ],
)
def test_damaged_headers(tmp_path: Path, header: object) -> None:
    assert "damaged" in message(write_raw(tmp_path / "m.safetensors", header, bytes(8)))


def test_absurd_header_length(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\xff" * 64)
    assert "damaged" in message(tmp_path / "m.safetensors")


def test_pickle_named_safetensors(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    assert "rename" in message(tmp_path / "m.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_read(tmp_path: Path, suffix: str, zipped: bool) -> None:
    w = torch.randn(3, 2).half()
    content = {"state_dict": {"w": w, "epoch": 3}, "global_step": 5}
    torch.save(content, tmp_path / f"m{suffix}", _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / f"m{suffix}")
    assert list(read) == ["w"] and torch.equal(read["w"], w)
    assert read_metadata(tmp_path / f"m{suffix}") == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "ran"
    torch.save(
        {"state_dict": {"w": torch.ones(2)}, "x": Exploit(trace)},
        tmp_path / "m.ckpt",
        _use_new_zipfile_serialization=zipped,
    )
    text = message(tmp_path / "m.ckpt")
    assert "contains Python code" in text and "system" in text and ".safetensors" in text
    assert not trace.exists()


def test_a_pickle_that_was_packed_again_is_refused(tmp_path: Path) -> None:
    """Mapped into memory as they are, compressed bytes would become weights without a word."""
    torch.save({"a": torch.ones(64, 64)}, tmp_path / "plain.pt")
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert "compressed" in message(path)


def test_training_leftovers_are_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SD checkpoints carry an object of the training framework beside the weights."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for parent in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    module = types.ModuleType(name)
    leftover = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = leftover  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    instance = leftover()
    instance.monitor = "loss"
    w = torch.randn(4)
    torch.save({"state_dict": {"w": w}, "callbacks": {leftover: {"best": 1}, "it": instance}}, tmp_path / "m.ckpt")
    monkeypatch.delitem(sys.modules, name)
    assert torch.equal(read_state_dict(tmp_path / "m.ckpt")["w"], w)


def test_parameter_dicts_of_old_embeddings_are_read(tmp_path: Path) -> None:
    vector = torch.randn(2, 768)
    content = {"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": vector})}
    torch.save(content, tmp_path / "style.pt")
    read = read_state_dict(tmp_path / "style.pt")
    assert [tuple(tensor.shape) for tensor in read.values()] == [(2, 768)]
    assert next(iter(read)).startswith("string_to_param")


def test_damaged_and_empty_pickles(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save({"w": torch.randn(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in message(path)
    path.write_bytes(b"\x00\x01\x02" * 400)
    assert "damaged" in message(path)
    torch.save({"step": 5}, path)
    assert "no weights" in message(path)


@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "old ckpt"])
def test_random_damage_is_a_model_file_error_or_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("m.safetensors" if kind == "safetensors" else "m.ckpt")
    tensors = {"a.weight": torch.randn(30, 7), "b": torch.randn(4).half()}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=kind == "ckpt")
    whole, chance, refused = path.read_bytes(), random.Random(1), 0
    for _ in range(150):
        content = bytearray(whole)
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        else:
            for _ in range(chance.choice([1, 2, 8])):
                content[chance.randrange(min(len(content), 400))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_state_dict(path)
        except ModelFileError:
            refused += 1
    assert refused > 30
