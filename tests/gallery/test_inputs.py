"""Initial pictures: each is kept only once, the way it is displayed, with the mask painted over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError, OutputError
from modules.gallery.history import History
from modules.gallery.inputs import (
    keep_drawing,
    keep_file,
    keep_input,
    painted,
)


def test_inputs_are_kept_once_and_stay_out_of_the_history(tmp_path: Path) -> None:
    picture = Image.new("RGB", (100, 60), "green")
    layer = Image.new("RGBA", (100, 60))
    layer.paste((255, 0, 0, 255), (10, 10, 20, 20))
    kept, again = keep_drawing(picture, [layer], tmp_path), keep_drawing(picture, [layer], tmp_path)
    assert kept == again and kept.size == (96, 64)
    assert kept.mask is not None and Image.open(kept.mask).getbbox() == (10, 10, 20, 20)
    assert keep_drawing(picture, [Image.new("RGBA", (100, 60))], tmp_path).mask is None
    assert keep_file(kept.image, tmp_path) == kept.image
    assert len(list(tmp_path.rglob("*.png"))) == 2 and History(tmp_path).paths() == []


def test_a_control_picture_is_kept_with_its_transparency(tmp_path: Path) -> None:
    """Keeps a hint's transparency: the black background is added only when the hint is used."""
    Image.new("LA", (8, 8), (255, 128)).save(tmp_path / "hint.png")
    assert Image.open(keep_file(tmp_path / "hint.png", tmp_path)).getpixel((0, 0)) == (255, 255, 255, 128)


def test_a_mask_is_the_union_of_all_layers_at_the_pictures_size() -> None:
    left, right = (Image.new("RGBA", (8, 8)) for _ in range(2))
    left.paste((0, 0, 0, 255), (0, 0, 2, 8))
    right.paste((9, 9, 9, 255), (6, 0, 8, 8))
    mask = painted([left, right], (16, 16))
    assert mask is not None and mask.size == (16, 16) and mask.getpixel((1, 8)) == mask.getpixel((14, 8)) == 255
    assert mask.getpixel((8, 8)) == 0 and painted([], (16, 16)) is None


def test_translucent_paint_masks_fully() -> None:
    """The brush is translucent; only its rim, where alpha is small, is not painted."""
    layer = Image.new("RGBA", (64, 8))
    layer.putalpha(Image.linear_gradient("L").rotate(90).resize((64, 8)).point(lambda value: value // 2))
    mask = painted([layer], layer.size)
    assert mask is not None and set(mask.tobytes()) == {0, 255}
    assert 40 < mask.getbbox()[2] - mask.getbbox()[0] < 56  # type: ignore[index]


def test_a_mask_file_is_scaled_keeps_its_grey_and_adds_to_the_paint(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 100).save(tmp_path / "grey.png")
    layer = Image.new("RGBA", (64, 64))
    layer.paste((1, 2, 3, 128), (0, 0, 10, 10))
    kept = keep_drawing(Image.new("RGB", (64, 64)), [layer], tmp_path, tmp_path / "grey.png")
    assert kept.mask is not None
    mask = Image.open(kept.mask)
    assert mask.size == (64, 64) and mask.getpixel((5, 5)) == 255 and mask.getpixel((40, 40)) == 100
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    with pytest.raises(OptionsError, match="black everywhere"):
        keep_drawing(Image.new("RGB", (64, 64)), [], tmp_path, tmp_path / "black.png")


def test_what_cannot_be_kept_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="gone.png"):
        keep_file(tmp_path / "gone.png", tmp_path)
    (tmp_path / "inputs").write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be kept"):
        keep_input(Image.new("RGB", (8, 8)), tmp_path)
