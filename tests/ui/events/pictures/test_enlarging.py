"""Tests the request that the HiresFix button makes of a finished picture's own."""

from __future__ import annotations

from pathlib import Path

from modules.generation.options import GenerationOptions, HiresOptions, InitImage, TiledOptions
from tests.tiny_project import save_photo
from ui.events.pictures.enlarging import second_pass


def test_the_picture_is_the_first_pass_and_the_form_has_the_second(tmp_path: Path) -> None:
    old = GenerationOptions(
        prompt="a cat",
        seed=7,
        steps=30,
        checkpoint="x",
        refiner="y",
        refiner_start=0.6,
        hires=HiresOptions(),
        tiled=TiledOptions(),
    )
    image = save_photo(tmp_path / "old.png", 64, 128)
    hires = HiresOptions(scale=1.5, denoise=0.4, steps=12, method="4x-sharp", keep_first_pass=True)
    assert second_pass(old, image, hires) == GenerationOptions(
        prompt="a cat",
        seed=7,
        steps=30,
        checkpoint="x",
        refiner="y",
        refiner_start=0.6,
        width=64,
        height=128,
        init=InitImage(image=image, denoise=0.0, resize="stretch"),
        hires=HiresOptions(scale=1.5, denoise=0.4, steps=12, method="4x-sharp"),
    )
