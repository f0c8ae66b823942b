"""Sampling settings of each pass: from the request, and inherited by the second pass from the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions, HiresOptions, InitImage
from modules.generation.pass_settings import PassSettings, first_settings, hires_settings, settings_of_passes
from modules.sampling.trained_noise import noise_schedule

REQUEST = GenerationOptions(prompt="x", sampler="heun", scheduler="simple", steps=12, cfg=5.0, rescale_cfg=0.7)
FIRST = PassSettings(phase="sampling", sampler="heun", scheduler="simple", steps=12, cfg=5.0, rescale_cfg=0.7)


def test_the_first_pass_is_as_asked() -> None:
    assert first_settings(REQUEST) == FIRST
    init = InitImage(image=Path("photo.png"), denoise=0.4)
    assert first_settings(GenerationOptions(prompt="x", init=init)).denoise == 0.4


def test_the_second_pass_follows_the_first_unless_it_says_otherwise() -> None:
    second = hires_settings(REQUEST, HiresOptions(denoise=0.3))
    assert second == replace(FIRST, phase="hires", denoise=0.3)
    own = HiresOptions(steps=4, cfg=0.0, sampler="euler", scheduler="karras", denoise=0.5)
    assert hires_settings(REQUEST, own) == PassSettings(
        phase="hires", sampler="euler", scheduler="karras", steps=4, cfg=0.0, rescale_cfg=0.7, denoise=0.5
    )


def test_the_refiner_has_a_part_in_the_last_pass_only() -> None:
    refined = replace(REQUEST, refiner="x", refiner_start=0.7)
    assert [settings.refiner_start for settings in settings_of_passes(refined)] == [0.7]
    passes = settings_of_passes(replace(refined, hires=HiresOptions()))
    assert [settings.refiner_start for settings in passes] == [None, 0.7]


@pytest.mark.parametrize(
    ("share", "steps", "first"), [(0.8, 5, 4), (0.7, 10, 7), (0.8, 2, 2), (0.5, 3, 2), (0.0, 4, 0), (None, 4, 4)]
)
def test_steps_before_the_refiner(share: float | None, steps: int, first: int) -> None:
    """As in A1111, a step is the refiner's once this share of the steps is done."""
    assert replace(FIRST, refiner_start=share).refined_from(steps) == first


def test_a_denoise_below_one_starts_lower_in_as_many_steps() -> None:
    noise = noise_schedule()
    whole = first_settings(REQUEST).sigmas(noise)
    part = hires_settings(REQUEST, HiresOptions(denoise=0.3)).sigmas(noise)
    assert len(whole) == len(part) == 13 and whole[-1] == part[-1] == 0.0
    assert part[0] < whole[0]
    assert hires_settings(REQUEST, HiresOptions(denoise=0.0)).sigmas(noise)[1:] == []


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(OptionsError, match="none-such"):
        hires_settings(REQUEST, HiresOptions(sampler="none-such"))
