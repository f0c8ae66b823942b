"""File names in API requests: only uploads and our own pictures are allowed; masks mean the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.gallery.inputs import keep_drawing
from modules.gallery.uploads import open_drawing, permitted
from modules.generation.image_to_image import open_source
from modules.generation.options import InitImage


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "mine.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    return folder


def test_a_file_of_the_folder_is_permitted(uploads: Path) -> None:
    assert permitted(uploads / ".." / "uploads" / "mine.png", [uploads]) == (uploads / "mine.png").resolve()


@pytest.mark.parametrize("name", ["../secret.png", "link.png", "gone.png", ".", "a\0b"])
def test_any_other_is_refused_in_the_same_words(uploads: Path, name: str) -> None:
    (uploads / "link.png").symlink_to(uploads.parent / "secret.png")
    with pytest.raises(OptionsError, match="neither an upload nor a picture in the output folder"):
        permitted(uploads / name, [uploads])


def test_a_mask_of_another_size_is_a_sentence(uploads: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 8)).save(tmp_path / "mask.png")
    with pytest.raises(OptionsError, match="The mask is 16x8 but the picture is 8x8"):
        open_drawing(uploads / "mine.png", tmp_path / "mask.png")
    assert open_drawing(uploads / "mine.png", None)["layers"] == []


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_means_the_same_on_the_command_line_and_in_the_api(tmp_path: Path, mode: str) -> None:
    """Half of the mask is white on a transparent background: only that half is painted."""
    mask = Image.new("RGBA", (64, 64))
    mask.paste((255, 255, 255, 255), (0, 0, 32, 64))
    (mask.quantize(4) if mode == "P" else mask.convert(mode)).save(tmp_path / "mask.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "picture.png")
    source = open_source(InitImage(image=tmp_path / "picture.png", mask=tmp_path / "mask.png"))
    drawing = open_drawing(tmp_path / "picture.png", tmp_path / "mask.png")
    kept = keep_drawing(drawing["background"], drawing["layers"], tmp_path)
    from_file = keep_drawing(drawing["background"], [], tmp_path, tmp_path / "mask.png")
    assert kept.mask is not None and source.mask is not None
    assert kept.mask == from_file.mask and Image.open(kept.mask).tobytes() == source.mask.tobytes()
    assert source.mask.getbbox() == (0, 0, 32, 64)
    assert Image.open(kept.image).tobytes() == source.image.tobytes()
    assert source.image.getextrema() == ((255, 255),) * 3, "the transparent picture is laid on white"
