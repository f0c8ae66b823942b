"""--upscale: folders and files enlarged without a prompt, resumed, with an error per picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from modules.images.open import open_image
from tests.cli.conftest import Run
from tests.tiny_project import save_photo


@pytest.fixture
def photos(root: Path) -> Path:
    """A folder with two pictures of one name, and a file that is no picture."""
    folder = root / "photos"
    (folder / "inner").mkdir(parents=True)
    save_photo(folder / "a.png", 64, 32)
    save_photo(folder / "a.jpg", 32, 64)
    save_photo(folder / "inner" / "deep.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_is_enlarged_and_then_resumed(run: Run, photos: Path, root: Path) -> None:
    results = root / "output" / "upscaled" / "photos-1.5x-lanczos"
    code, paths, err = run("--upscale", str(photos), "--upscale-by", "1.5")
    assert code == 0 and paths == [results / "a.jpg.png", results / "a.png.png"]
    assert [open_image(path).size for path in paths] == [(48, 96), (96, 48)]
    assert "enlarging" in err and "2/2" in err
    os.utime(photos / "a.jpg", (2**31, 2**31))  # changed since
    code, again, err = run("--upscale", str(photos), "--upscale-by", "1.5")
    assert code == 0 and again == [results / "a.jpg.png"]
    assert f"a.png: already done, {results / 'a.png.png'}" in err
    assert run("--upscale", str(photos), "--upscale-to", "40x40")[1] != paths


def test_a_bad_picture_is_told_at_the_end_and_in_the_exit_code(
    run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "Bad.PNG").write_bytes(b"no picture")
    code, paths, err = run("--upscale", str(photos))
    assert code == 2 and len(paths) == 2
    assert err.rstrip().splitlines()[-1].startswith('error: "Bad.PNG" is not a picture file')
    code, (line,), err = run("--upscale", str(photos), "--json", "--quiet")
    answer = json.loads(str(line))
    assert code == answer["exit_code"] == 2 and "enlarging" not in err
    assert [image["status"] for image in answer["images"]] == ["skipped", "skipped"]
    assert [Path(each["source"]).name for each in answer["failed"]] == ["Bad.PNG"]


def test_one_file(run: Run, photos: Path, root: Path) -> None:
    code, paths, _ = run("--upscale", str(photos / "a.png"), "--upscale-to", "80x80", "--output-dir", str(root / "x"))
    assert code == 0 and paths == [root / "x" / "upscaled" / "photos-80x80-lanczos" / "a.png"]
    assert Image.open(paths[0]).size == (80, 80)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seed", "4"], "--seed has no meaning with --upscale"),
        (["a cat"], "--prompt has no meaning"),
        (["--upscale-by", "2", "--upscale-to", "64x64"], "both set the size"),
        (["--upscale-by", "99"], "scale 99.0 is out of range"),
        (["--upscale-to", "64"], '--upscale-to "64": write it as WIDTHxHEIGHT'),
        (["--upscaler", "bislerp"], "enlarges latents"),
        (["--upscaler", "nope"], '"nope" was not found'),
    ],
)
def test_what_is_refused(run: Run, photos: Path, words: list[str], told: str) -> None:
    code, paths, err = run(*words, "--upscale", str(photos))
    assert code in (2, 3) and paths == [] and told in err and err.count("\n") == 1


def test_a_folder_without_pictures_and_a_missing_file(run: Run, root: Path) -> None:
    (root / "empty").mkdir()
    assert "holds no pictures" in run("--upscale", str(root / "empty"))[2]
    assert "does not exist" in run("--upscale", str(root / "gone.png"))[2]


def test_upscale_sizes_need_upscale(run: Run) -> None:
    code, _, err = run("a cat", "--upscale-by", "2")
    assert code == 2 and "--upscale-by and --upscale-to are for --upscale PATH" in err
