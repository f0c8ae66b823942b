"""Files that A1111 and Civitai keep beside a model, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules.catalog.sidecars import Sidecar, picture_beside, read_sidecar


def test_a1111s_and_civitais_texts(tmp_path: Path) -> None:
    (tmp_path / "ink.json").write_text(json.dumps({"activation text": "ink, paper", "preferred weight": 0.7}))
    (tmp_path / "ink.civitai.info").write_text(
        json.dumps({"trainedWords": ["ink, paper", "brush", 7], "baseModel": "SDXL 1.0"})
    )
    sidecar = read_sidecar(tmp_path / "ink.safetensors")
    assert sidecar == Sidecar(words=("ink, paper", "brush"), weight=0.7, family="SDXL")
    assert read_sidecar(tmp_path / "other.safetensors") == Sidecar()


@pytest.mark.parametrize("weight", [0, 0.0, True, "1", None, 1e300, [1]])
def test_a_weight_that_is_none(tmp_path: Path, weight: object) -> None:
    (tmp_path / "ink.json").write_text(json.dumps({"preferred weight": weight, "activation text": 5}))
    assert read_sidecar(tmp_path / "ink.safetensors") == Sidecar()


@pytest.mark.parametrize("name", ["a.b.png", "a.b.jpeg", "a.b.preview.webp", "a.b.preview.png"])
def test_the_picture_beside_a_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    model = tmp_path / "a.b.safetensors"
    assert picture_beside(model, [name, "a.png"]) == tmp_path / name
    assert picture_beside(model, ["a.b.txt", "other.png"]) is None


def test_a_link_to_another_folder_is_no_picture(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    loras = tmp_path / "loras"
    loras.mkdir()
    (loras / "ink.png").symlink_to(secret)
    assert picture_beside(loras / "ink.safetensors", ["ink.png"]) is None
    (loras / "ink.png").unlink()
    (loras / "ink.png").mkdir()
    assert picture_beside(loras / "ink.safetensors", ["ink.png"]) is None
    linked = tmp_path / "linked"
    linked.symlink_to(loras)
    (loras / "dot.png").write_bytes(b"x")
    assert picture_beside(linked / "dot.safetensors", ["dot.png"]), "a whole folder may be a link"
