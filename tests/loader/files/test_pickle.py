"""Pickles in old and new formats are read, and none of them runs code."""

from __future__ import annotations

import os
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch

from modules.loader.files.state_dict import read_metadata, read_state_dict
from tests.loader.files.refusal import message


class Exploit:
    """Runs a command when unpickled by an unsafe loader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


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
    """If compressed bytes were mapped into memory unchanged, they would silently become weights."""
    torch.save({"a": torch.ones(64, 64)}, tmp_path / "plain.pt")
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert "compressed" in message(path)


def test_training_leftovers_are_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SD checkpoints contain an object of the training framework besides the weights."""
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
