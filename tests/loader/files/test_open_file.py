"""Files that are not models, and random damage: one clear sentence for each kind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import ModelFileError
from modules.loader.files.state_dict import read_state_dict
from tests.loader.files.refusal import message


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
def test_files_that_are_no_models(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    (tmp_path / f"m{suffix}").write_bytes(content)
    assert words in message(tmp_path / f"m{suffix}")


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
