"""A task survives the way to another machine: seed, names, pictures, and the check of its model files."""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from modules.cluster.travel import check_files, packed, unpacked
from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.metadata.named_files import Fingerprints
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.tasks.axes import Axis
from modules.tasks.task import Enlarge, FreeMemory, MakeGrid, MakePictures
from tests import tiny_project

PLAIN = GenerationOptions(prompt="a cat", width=64, height=64)


@pytest.fixture
def folders(models: Path) -> ModelFolders:
    return ModelFolders(models)


def test_seed_and_checkpoint_are_decided_before_the_way(folders: ModelFolders) -> None:
    order = packed(MakePictures(options=PLAIN), folders, None)
    assert order.task.options.seed is not None and order.checkpoint == "tiny.safetensors"  # type: ignore[union-attr]
    assert order.hashes is None, "on one machine there is nothing to check"
    assert packed(FreeMemory(), folders, None).checkpoint is None


def test_pictures_travel_as_bytes_under_their_names(folders: ModelFolders, tmp_path: Path) -> None:
    photo, edges = (tiny_project.save_photo(tmp_path / name) for name in ("photo.png", "edges.png"))
    mask = tiny_project.save_photo(tmp_path / "mask.png", 72, 72)
    options = replace(
        PLAIN,
        controls=(ControlChoice(name="edges", image=edges), ControlChoice(name="edges", image=photo)),
        init=InitImage(image=photo, mask=mask),
    )
    contents = [path.read_bytes() for path in options.pictures]
    order = pickle.loads(pickle.dumps(packed(MakePictures(options=options), folders, None)))
    for path in (photo, edges, mask):
        path.unlink()
    with unpacked(order) as task:
        there = task.options.pictures  # type: ignore[union-attr]
        assert [path.name for path in there] == ["edges.png", "photo.png", "photo.png", "mask.png"]
        assert [path.read_bytes() for path in there] == contents
    assert not any(path.exists() for path in there)


def test_a_task_on_given_pictures_travels_with_them(folders: ModelFolders, tmp_path: Path) -> None:
    photo = tiny_project.save_photo(tmp_path / "photo.png")
    content = photo.read_bytes()
    order = pickle.loads(pickle.dumps(packed(Enlarge(images=(photo, photo)), folders, None)))
    photo.unlink()
    with unpacked(order) as task:
        assert [path.read_bytes() for path in task.images] == [content, content]  # type: ignore[union-attr]


def test_a_lost_picture_is_a_sentence(folders: ModelFolders, tmp_path: Path) -> None:
    options = replace(PLAIN, init=InitImage(image=tmp_path / "gone.png"))
    with pytest.raises(OptionsError, match=r'gone.png" cannot be read'):
        packed(MakePictures(options=options), folders, None)


def test_paths_of_models_become_names_or_absolute(
    folders: ModelFolders, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tiny_project.save_lora(tmp_path / "far.safetensors")
    monkeypatch.chdir(tmp_path)
    inside = os.path.relpath(models / "models" / "loras" / "ink.safetensors")
    options = replace(
        PLAIN,
        prompt="a cat <lora:./far.safetensors:0.5>",
        loras=(LoraChoice(name="./far.safetensors"), LoraChoice(name=inside), LoraChoice(name="clay")),
        hires=HiresOptions(method="bislerp"),
    )
    task = packed(MakePictures(options=options), folders, None).task
    assert [lora.name for lora in task.options.loras] == [str(outside), "ink.safetensors", "clay"]  # type: ignore[union-attr]
    assert task.options.prompt == f"a cat <lora:{outside}:0.5>"  # type: ignore[union-attr]
    assert task.options.hires == options.hires  # type: ignore[union-attr]


def test_another_file_of_the_same_name_is_refused(folders: ModelFolders, tmp_path: Path) -> None:
    task = MakePictures(options=replace(PLAIN, loras=(LoraChoice(name="ink"),)))
    order = packed(task, folders, Fingerprints())
    check_files(order, order.task, folders, Fingerprints())
    elsewhere = ModelFolders(tiny_project.project(tmp_path / "other machine"))
    lora = tiny_project.save_lora(elsewhere.find("loras", "ink"), seed=99)
    told = f"on {socket.gethostname()} cannot make this: {lora} is not the file"
    with pytest.raises(ModelFileError, match=told):
        check_files(order, order.task, elsewhere, Fingerprints())
    lora.unlink()
    with pytest.raises(ModelFileError, match='cannot make this: No LoRA named "ink"'):
        check_files(order, order.task, elsewhere, Fingerprints())


def test_each_file_of_a_grid_is_checked(folders: ModelFolders, tmp_path: Path) -> None:
    axis = Axis(option="checkpoint", values=("tiny", "tiny.safetensors"))
    order = packed(MakeGrid(options=PLAIN, across=axis), folders, Fingerprints())
    assert order.hashes is not None and len(order.hashes) == 2
