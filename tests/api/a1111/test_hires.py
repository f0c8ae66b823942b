"""A1111's hr_* fields as our second pass."""

from __future__ import annotations

from typing import Any

import pytest

from api.a1111.hires import method_of, read_hires
from api.fields import Fields
from modules.core.errors import OptionsError


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({}, (1024, 1536)),
        ({"hr_scale": 1.5}, (768, 1152)),
        ({"hr_resize_x": 640}, (640, 960)),
        ({"hr_resize_y": 1000}, (664, 1000)),
        ({"hr_resize_x": 640, "hr_resize_y": 960}, (640, 960)),
        ({"hr_resize_x": 648, "hr_resize_y": 960}, (648, 960)),
    ],
)
def test_the_size_of_the_second_pass(given: dict[str, Any], target: tuple[int, int]) -> None:
    assert read_hires(Fields(given), (512, 768)).target(512, 768) == target


def test_what_is_as_in_the_first_pass() -> None:
    given = {"hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler", "hr_cfg": 0}
    hires = read_hires(Fields(given), (512, 512))
    assert (hires.sampler, hires.scheduler, hires.cfg, hires.steps) == (None, None, None, 0)
    other = read_hires(Fields({"hr_sampler_name": "DDIM", "hr_scheduler": "Beta", "hr_cfg": 3}), (512, 512))
    assert (other.sampler, other.scheduler, other.cfg) == ("DDIM", "Beta", 3)


def test_the_same_prompt_is_no_other_one() -> None:
    given = {"prompt": "a cat", "hr_prompt": "a cat", "negative_prompt": "x", "hr_negative_prompt": "x"}
    assert read_hires(Fields(given), (512, 512)).scale == 2


def test_a_second_pass_of_another_shape_is_refused() -> None:
    with pytest.raises(OptionsError, match="another aspect ratio than 512x768"):
        read_hires(Fields({"hr_resize_x": 640, "hr_resize_y": 640}), (512, 768))


def test_names_of_upscalers() -> None:
    names = ("Latent", "Latent (nearest-exact)", "None", "Lanczos", "R-ESRGAN 4x+", "mine")
    assert [method_of(name) for name in names] == [
        "bilinear", "nearest-exact", "lanczos", "lanczos", "RealESRGAN_x4plus", "mine",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["hr_prompt", "hr_negative_prompt", "hr_checkpoint_name"])
def test_what_a_second_pass_cannot_have(name: str) -> None:
    with pytest.raises(OptionsError, match=name):
        read_hires(Fields({name: "another"}), (512, 512))
