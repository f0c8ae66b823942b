"""Requests that make no sense are refused with one sentence; other requests are resolved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import OptionsError
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 0}, ["width 0", "multiple of 8", "64"]),
        ({"width": 7}, ["width 7", "multiple of 8"]),
        ({"height": 100000}, ["height 100000", "8192"]),
        ({"width": 260}, ["width 260", "256"]),
        ({"steps": -3}, ["steps -3", "1"]),
        ({"steps": 0}, ["steps 0"]),
        ({"cfg": float("nan")}, ["cfg nan"]),
        ({"cfg": -1.0}, ["cfg -1"]),
        ({"rescale_cfg": 1.5}, ["rescale cfg 1.5", "from 0 to 1"]),
        ({"number": 0}, ["number of images 0"]),
        ({"batch": 65}, ["batch size 65"]),
        ({"seed": -2}, ["seed -2"]),
        ({"seed": 2**63}, ["seed"]),
        ({"clip_skip": 0}, ["Clip skip 0"]),
        ({"emphasis": "strong"}, ["strong", "comfy"]),
        ({"stable_fast": "turbo"}, ["turbo", "full"]),
        ({"prediction": "x0"}, ["x0", "epsilon"]),
        ({"batch": 2, "only": 2}, ["picture of the batch 2"]),
    ],
)
def test_senseless_values_are_refused_by_name(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OptionsError) as caught:
        GenerationOptions(prompt="x", **values)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: HiresOptions(scale=5.0), "scale"),
        (lambda: HiresOptions(width=512), "height"),
        (lambda: HiresOptions(width=511, height=512), "511"),
        (lambda: InitImage(image=Path("a.png"), denoise=2.0), "denoise"),
        (lambda: InitImage(image=Path("a.png"), resize="squash"), "squash"),
        (lambda: ControlChoice(name="c", image=Path("a.png"), strength=-1.0), "strength"),
        (lambda: ControlChoice(name="c", image=Path("a.png"), mode="both"), "both"),
        (lambda: ControlChoice(name="c", image=Path("a.png"), preprocessor="pose"), "pose"),
        (lambda: ControlChoice(name="c", image=Path("a.png"), kind="hands"), "hands"),
        (lambda: LoraChoice(name="l", strength=float("inf")), "inf"),
    ],
)
def test_senseless_choices_are_refused(make: Any, word: str) -> None:
    with pytest.raises(OptionsError, match=word):
        make()


def test_resolving_fills_in_size_and_seed_only() -> None:
    options = GenerationOptions(prompt="x", height=192)
    resolved = options.resolved(native_size=128)
    assert (resolved.width, resolved.height) == (128, 192)
    assert resolved.seed is not None and 0 <= resolved.seed < 2**32
    assert resolved.steps == options.steps
    assert GenerationOptions(prompt="x", seed=3).resolved(128).seed == 3


def test_random_seeds_differ() -> None:
    options = GenerationOptions(prompt="x")
    assert len({options.resolved(128).seed for _ in range(8)}) == 8


def test_hires_target_keeps_to_multiples_of_eight() -> None:
    assert HiresOptions(scale=1.3).target(128, 72) == (168, 96)
    assert HiresOptions(width=640, height=384).target(128, 72) == (640, 384)


def test_options_need_no_torch() -> None:
    """This keeps `pipeline.py --help` fast."""
    code = "import sys, modules.generation.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
