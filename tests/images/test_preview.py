"""The preview of a latent: the matrix computed by hand, the first image only, and never an error during a run."""

from __future__ import annotations

import torch

from modules.images.preview import latent_to_rgb


def test_colours_follow_the_matrix() -> None:
    latent = torch.zeros(2, 4, 3, 5, dtype=torch.float16)
    latent[0, 0, 1, 2], latent[0, 3, 1, 2] = 1.0, -0.5
    picture = latent_to_rgb(latent, "SD1.x")
    assert picture.size == (5, 3) and picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (128, 128, 128)
    expected = [0.3512 + 0.1060, 0.2297 + 0.1308, 0.3227 + 0.35885]
    assert list(picture.getpixel((2, 1))) == [round((value + 1) * 127.5) for value in expected]


def test_sdxl_has_a_fit_of_its_own() -> None:
    latent = torch.zeros(4, 2, 2)
    latent[1, 0, 0] = 0.5
    picture = latent_to_rgb(latent, "SDXL")
    expected = [0.1084 - 0.12665, -0.0175 - 0.0021, -0.0011 + 0.0534]
    assert list(picture.getpixel((0, 0))) == [round((value + 1) * 127.5) for value in expected]


def test_extremes_are_clipped_and_invalid_numbers_shown() -> None:
    latent = torch.full((4, 2, 2), 100.0)
    latent[:, 0, 0] = float("nan")
    picture = latent_to_rgb(latent, "SD1.x")
    assert picture.getpixel((1, 1))[0] == 255
    assert picture.getpixel((0, 0)) == (128, 128, 128)
