"""History and kept inputs: order, search, delete only what is ours, masks, sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.gallery.history import History
from modules.gallery.inputs import keep_drawing, keep_file, mask_layer, painted
from modules.gallery.uploads import open_drawing
from modules.generation.image_to_image import open_source
from modules.generation.options import InitImage
from modules.images.save import save_png


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, text in enumerate(["a red circle", "a Blue square", "a blue star"]):
        save_png(Image.new("RGB", (8, 8)), tmp_path, seed, f"{text}\nSteps: 1, Seed: {seed}, Size: 8x8")
    return tmp_path


def test_newest_first_with_all_words_in_any_case(folder: Path) -> None:
    history = History(folder)
    assert [path.name for path in history.paths()] == ["00003-2.png", "00002-1.png", "00001-0.png"]
    entries, total = history.search("BLUE square")
    assert [entry.path.name for entry in entries] == ["00002-1.png"] and total == 1
    entries, total = history.search(limit=1, skip=1)
    assert [entry.path.name for entry in entries] == ["00002-1.png"] and total == 3


def test_a_damaged_file_is_listed_without_text(folder: Path) -> None:
    damaged = history_day(folder) / "00009-9.png"
    damaged.write_bytes(b"no picture")
    assert History(folder).search()[0][0].text == ""


def history_day(folder: Path) -> Path:
    return History(folder).paths()[0].parent


def test_only_pictures_of_the_folder_are_deleted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    history = History(folder)
    stranger = tmp_path_factory.mktemp("elsewhere") / "x.png"
    Image.new("RGB", (8, 8)).save(stranger)
    for path in (stranger, folder / ".." / "x.png", folder / "last_seed.json"):
        with pytest.raises(OptionsError, match="no picture in the output folder"):
            history.delete(path)
    assert stranger.exists()
    victim = history.paths()[0]
    history.delete(victim)
    assert not victim.exists() and len(history.paths()) == 2


def test_inputs_are_kept_once_and_are_no_history(folder: Path) -> None:
    picture = Image.new("RGB", (100, 60), "green")
    layer = Image.new("RGBA", (100, 60))
    layer.paste((255, 0, 0, 255), (10, 10, 20, 20))
    kept, again = keep_drawing(picture, [layer], folder), keep_drawing(picture, [layer], folder)
    assert kept == again and kept.size == (96, 64)
    assert kept.mask is not None and Image.open(kept.mask).getbbox() == (10, 10, 20, 20)
    assert painted([mask_layer(kept.mask)], picture.size).getbbox() == (10, 10, 20, 20)  # type: ignore[union-attr]
    assert keep_drawing(picture, [Image.new("RGBA", (100, 60))], folder).mask is None
    assert keep_file(kept.image, folder) == kept.image
    assert len(History(folder).paths()) == 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_means_the_same_on_the_command_line_and_in_the_api(tmp_path: Path, mode: str) -> None:
    """Half of it white on a transparent ground: only that half is painted."""
    mask = Image.new("RGBA", (64, 64))
    mask.paste((255, 255, 255, 255), (0, 0, 32, 64))
    (mask.quantize(4) if mode == "P" else mask.convert(mode)).save(tmp_path / "mask.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "picture.png")
    source = open_source(InitImage(image=tmp_path / "picture.png", mask=tmp_path / "mask.png"))
    drawing = open_drawing(tmp_path / "picture.png", tmp_path / "mask.png")
    kept = keep_drawing(drawing["background"], drawing["layers"], tmp_path)
    assert kept.mask is not None and source.mask is not None
    assert Image.open(kept.mask).tobytes() == source.mask.tobytes()
    assert source.mask.getbbox() == (0, 0, 32, 64)
    assert Image.open(kept.image).tobytes() == source.image.tobytes()
    assert source.image.getextrema() == ((255, 255),) * 3, "the transparent picture is laid on white"


def test_a_control_picture_is_kept_with_its_transparency(tmp_path: Path) -> None:
    """In a hint nothing is black, whoever gives it: the ground is laid below it only when it is used."""
    Image.new("LA", (8, 8), (255, 128)).save(tmp_path / "hint.png")
    assert Image.open(keep_file(tmp_path / "hint.png", tmp_path)).getpixel((0, 0)) == (255, 255, 255, 128)
