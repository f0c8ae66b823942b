"""Tests finding model files: names, paths, extra folders, and the message when nothing matches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import KINDS, PROJECT_ROOT, ModelFolders, each_folder_once


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_lists_by_kind_sorted_with_sub_folders(model_root: Path) -> None:
    put(model_root, "loras/b.safetensors", "loras/A.safetensors", "loras/sub/c.pt", "loras/notes.txt", "loras/.x.pt")
    put(model_root, "checkpoints/other.safetensors")
    assert ModelFolders(model_root).list("loras") == ["A.safetensors", "b.safetensors", "sub/c.pt"]
    assert ModelFolders(model_root).list("vae") == []


def test_a_diffusers_folder_is_one_model(model_root: Path) -> None:
    put(model_root, "checkpoints/mine/model_index.json", "checkpoints/mine/unet/weights.safetensors")
    folders = ModelFolders(model_root)
    assert folders.list("checkpoints") == ["mine"]
    assert folders.find("checkpoints", "mine") == model_root / "models/checkpoints/mine"


def test_with_names_only_a_path_is_not_a_name(model_root: Path, tmp_path: Path) -> None:
    put(model_root, "loras/sub/mine.safetensors")
    outside = tmp_path / "outside.safetensors"
    outside.touch()
    folders = ModelFolders(model_root, names_only=True)
    assert folders.find("loras", "mine") == folders.find("loras", "sub/mine.safetensors")
    for path in (outside, Path("../../outside.safetensors"), Path("/etc/hostname")):
        with pytest.raises(ModelFileError, match="No LoRA named"):
            folders.find("loras", path)
    assert ModelFolders(model_root).find("loras", outside) == outside


@pytest.mark.parametrize(
    "name", ["sub/Style.safetensors", "sub/Style", "Style", "style", "STYLE.SAFETENSORS", "sub\\style"]
)
def test_finds_by_full_and_short_names(model_root: Path, name: str) -> None:
    put(model_root, "loras/sub/Style.safetensors", "loras/else.safetensors")
    assert ModelFolders(model_root).find("loras", name) == model_root / "models/loras/sub/Style.safetensors"


def test_dots_in_names_are_not_endings(model_root: Path) -> None:
    put(model_root, "checkpoints/v1.5.safetensors", "checkpoints/v1.4.safetensors")
    assert ModelFolders(model_root).find("checkpoints", "v1.5").name == "v1.5.safetensors"


def test_finds_by_path_anywhere(model_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "away").mkdir()
    outside = tmp_path / "away" / "mine.safetensors"
    outside.touch()
    folders = ModelFolders(model_root)
    assert folders.find("checkpoints", str(outside)) == outside
    assert folders.find("checkpoints", outside) == outside
    monkeypatch.chdir(outside.parent)
    assert folders.find("checkpoints", "mine.safetensors") == outside
    assert folders.find("checkpoints", "./mine.safetensors") == outside


def test_a_bare_word_is_never_a_folder_of_the_place_we_stand_in(
    model_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(model_root, "checkpoints/demo.safetensors")
    (model_root / "demo").mkdir()
    monkeypatch.chdir(model_root)
    assert ModelFolders(model_root).find("checkpoints", "demo").name == "demo.safetensors"


def test_a_full_name_wins_over_short_ones_and_doubt_is_an_error(model_root: Path) -> None:
    put(model_root, "vae/a.safetensors", "vae/a.pt", "vae/sub/a.safetensors")
    folders = ModelFolders(model_root)
    assert folders.find("vae", "a.pt").name == "a.pt"
    with pytest.raises(ModelFileError, match=r'fits several VAE files \("a.pt", "a.safetensors"\); give the full name'):
        folders.find("vae", "a")


def test_a_path_gets_a_name_that_lasts(model_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(model_root, "loras/sub/a.safetensors", "loras/b.safetensors")
    outside = tmp_path / "out side"
    outside.mkdir()
    (outside / "b.safetensors").touch()
    folders = ModelFolders(model_root)
    assert folders.lasting_name("loras", "sub/a.safetensors") == "sub/a.safetensors"
    assert folders.lasting_name("loras", "A") == "A"
    assert folders.lasting_name("loras", "gone") == "gone"
    monkeypatch.chdir(model_root)
    assert folders.lasting_name("loras", "models/loras/sub/a.safetensors") == "sub/a.safetensors"
    assert folders.lasting_name("loras", str(model_root / "models/loras/b.safetensors")) == "b.safetensors"
    monkeypatch.chdir(outside)
    for typed in ("./b.safetensors", str(outside / "b.safetensors")):
        assert folders.lasting_name("loras", typed) == "b.safetensors"  # never its path on this disk
        assert folders.outside("loras", typed) == (outside / "b.safetensors").resolve()
    assert folders.outside("loras", str(model_root / "models/loras/b.safetensors")) is None
    assert folders.outside("loras", "gone") is None


def test_nothing_found_names_the_nearest(model_root: Path) -> None:
    put(model_root, "checkpoints/dreamshaper_8.safetensors", "checkpoints/zzz.ckpt")
    with pytest.raises(
        ModelFileError, match=r'No checkpoint named "dreamshapr" in .*nearest: "dreamshaper_8.safetensors"'
    ):
        ModelFolders(model_root).find("checkpoints", "dreamshapr")
    with pytest.raises(ModelFileError, match=r'available: "dreamshaper_8.safetensors", "zzz.ckpt"'):
        ModelFolders(model_root).find("checkpoints", "qqqqqq")


@pytest.mark.parametrize("name", ["", "x", "../../no-such", "/no/such.safetensors", "\0"])
def test_nothing_there_says_where_to_put_it(model_root: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match=r"models.checkpoints; put the file there"):
        ModelFolders(model_root).find("checkpoints", name)


def test_missing_folders_are_empty(tmp_path: Path) -> None:
    assert [ModelFolders(tmp_path).list(kind) for kind in KINDS] == [[]] * len(KINDS)


def test_unknown_kinds_are_refused(model_root: Path) -> None:
    with pytest.raises(OptionsError, match='"unets"; choose one of checkpoints'):
        ModelFolders(model_root).list("unets")


def test_extra_folders_come_after_ours(model_root: Path) -> None:
    put(model_root, "loras/mine.safetensors", "loras/both.safetensors")
    (model_root / "far").mkdir()
    for name in ("both.safetensors", "far.safetensors"):
        (model_root / "far" / name).touch()
    (model_root / "model_folders.toml").write_text('loras = "far"\nvae = ["~/vae", "/data/vae"]\n')
    folders = ModelFolders(model_root)
    assert folders.list("loras") == ["both.safetensors", "far.safetensors", "mine.safetensors"]
    assert folders.find("loras", "both").parent == model_root / "models/loras"
    assert folders.find("loras", "far") == model_root / "far/far.safetensors"
    assert folders.folders("vae")[1:] == [Path.home() / "vae", Path("/data/vae")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loras = [", "not valid TOML"),
        ('unets = "x"', 'unknown kind "unets"'),
        ("loras = 3", "must be a folder"),
        ('[loras]\na = "b"', "must be a folder"),
    ],
)
def test_a_bad_folder_list_is_explained(model_root: Path, text: str, words: str) -> None:
    (model_root / "model_folders.toml").write_text(text)
    with pytest.raises(OptionsError, match=words):
        ModelFolders(model_root)


def test_a_named_folder_list_must_exist(model_root: Path) -> None:
    with pytest.raises(OptionsError, match="does not exist"):
        ModelFolders(model_root, model_root / "none.toml")


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_are_followed_and_loops_end(model_root: Path, tmp_path: Path) -> None:
    put(model_root, "loras/a.safetensors")
    (model_root / "models/loras/loop").symlink_to(model_root / "models/loras")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/b.safetensors").touch()
    (model_root / "models/loras/linked").symlink_to(tmp_path / "store")
    assert ModelFolders(model_root).list("loras") == ["a.safetensors", "linked/b.safetensors"]


def test_the_example_is_valid_and_every_kind_has_a_readme(tmp_path: Path) -> None:
    ModelFolders(tmp_path, PROJECT_ROOT / "model_folders.example.toml")
    for kind in KINDS:
        assert (PROJECT_ROOT / "models" / kind / "README.md").is_file()


def test_a_folder_can_be_listed_once_for_many_questions(model_root: Path) -> None:
    """Files that come meanwhile are found by the next request."""
    put(model_root, "loras/ink.safetensors")
    folders = ModelFolders(model_root)
    with each_folder_once():
        assert folders.find("loras", "ink") == folders.find("loras", "INK")
        put(model_root, "loras/oil.safetensors")
        assert folders.list("loras") == ["ink.safetensors"]
    assert folders.list("loras") == ["ink.safetensors", "oil.safetensors"]
