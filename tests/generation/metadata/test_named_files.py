"""Files in a picture's text are found by name and hash, wherever they have moved, and by old full paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders
from modules.generation.metadata.named_files import Fingerprints, find_model, find_picture, fingerprint, places_of
from modules.generation.metadata.packed import pack, unpack
from modules.generation.metadata.write import from_parameters
from modules.generation.options import ControlChoice, InitImage

BASE = "a cat\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Init image: "


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "pictures" / "photo.png"
    path.parent.mkdir()
    Image.new("RGB", (64, 64), "red").save(path)
    return path


def test_a_file_is_named_by_its_name_and_hash_only(photo: Path) -> None:
    init = InitImage(image=photo, mask=photo, denoise=0.5)
    packed = pack(init, {"image": fingerprint(photo), "mask": "0" * 16})
    assert "pictures" not in packed and "/" not in packed
    read, hashes = unpack(InitImage, packed)
    assert read.image == Path("photo.png") and hashes == {"image": fingerprint(photo), "mask": "0" * 16}


def test_the_hash_decides(photo: Path, tmp_path: Path) -> None:
    wanted, other = fingerprint(photo), tmp_path / "photo.png"
    Image.new("RGB", (64, 64), "blue").save(other)
    folders = [tmp_path, photo.parent]
    assert find_picture(Path("photo.png"), wanted, folders, Fingerprints()) == photo
    os.rename(photo, photo.with_name("renamed.png"))
    assert find_picture(Path("photo.png"), wanted, folders, Fingerprints()) == photo.with_name("renamed.png")
    assert find_picture(Path("photo.png"), "0" * 16, folders, Fingerprints()) is None
    assert find_picture(Path("photo.png"), None, folders, Fingerprints()) is None  # a name alone proves nothing


def test_old_whole_paths_still_work(photo: Path, tmp_path: Path) -> None:
    old = from_parameters(BASE + f'"{{\\"image\\": \\"{photo}\\", \\"denoise\\": 0.4}}"')
    assert old.init == InitImage(image=photo, denoise=0.4)
    kept = tmp_path / "inputs" / f"{fingerprint(photo)}.png"
    kept.parent.mkdir()
    os.rename(photo, kept)  # as inputs are kept beside the output; the project moved
    assert find_picture(Path("/gone/output/inputs") / kept.name, None, [kept.parent], Fingerprints()) == kept


def test_nothing_but_files_is_opened(tmp_path: Path) -> None:
    for name in ("/dev/zero", str(tmp_path), "a\0b", "x" * 5000, "~nosuch/x", "C:\\a\\b.png"):
        assert find_picture(Path(name), None, [tmp_path], Fingerprints()) is None
        assert find_picture(Path(name), "0" * 16, [tmp_path], Fingerprints()) is None
        with pytest.raises(ModelFileError):
            find_model(ModelFolders(tmp_path), "checkpoints", name if name != str(tmp_path) else "none")


def test_the_places_of_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "output" / "2026-11-28" / "00001-1.png"
    (tmp_path / "output" / "2026-11-27").mkdir(parents=True)
    places = places_of(picture, tmp_path / "output")
    assert places[0] == picture.parent and tmp_path / "output" / "inputs" in places
    assert tmp_path / "output" / "2026-11-27" in places and Path.cwd() in places and len(set(places)) == len(places)


def test_a_file_that_changed_is_read_again(photo: Path) -> None:
    known = Fingerprints()
    first = known.of(photo)
    assert first == known.of(photo) == fingerprint(photo)
    Image.new("RGB", (72, 64), "blue").save(photo)
    assert known.of(photo) == fingerprint(photo) != first
    assert known.of(photo.parent) is None and known.of(photo.with_name("gone")) is None


def test_a_control_picture_that_is_given_is_not_looked_for(photo: Path) -> None:
    packed = pack(ControlChoice(name="edges", image=photo), {"image": "0" * 16})
    text = BASE.partition(", Init")[0] + ", ControlNet 0: " + f'"{packed}"'.replace('"{', "\x00").replace("\x00", "{")
    text = text.rstrip('"')
    controls = from_parameters(text, {"control_image": [photo]}).controls
    assert [control.name for control in controls] == ["edges"]
