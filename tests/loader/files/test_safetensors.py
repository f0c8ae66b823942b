"""Safetensors: values, memory mapping, and one clear sentence for each kind of damage."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.loader.files.state_dict import open_weights, read_metadata, read_state_dict
from tests.loader.files.refusal import message

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn]


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


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
    """Two tensors are as far apart in memory as in the file."""
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
    text += b" " * ((3 - len(text)) % 8)  # misaligns the data by three bytes
    path = write_raw(tmp_path / "m.safetensors", text, struct.pack("<ff", 1.5, -2.0))
    assert read_state_dict(path)["w"].tolist() == [1.5, -2.0]


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
