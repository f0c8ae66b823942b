"""Which implementation is expected to be the fastest for a shape that was not measured."""

from __future__ import annotations

import math

import pytest

from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.kernels.near_shapes import distance, predict

NAMES = ("library", "small", "wide")
MEASURED = {
    (1024, 320, "float16"): {"library": 2.0, "small": 1.0, "wide": 3.0},
    (8192, 320, "float16"): {"library": 2.0, "small": 4.0, "wide": 1.0},
    (8192, 320, "bfloat16"): {"library": 1.0, "small": 9.0, "wide": 9.0},
}


@pytest.mark.parametrize(("rows", "expected"), [(1024, "small"), (1100, "small"), (7000, "wide"), (40000, "wide")])
def test_the_nearest_shapes_count_most(rows: int, expected: str) -> None:
    assert predict("linear_epilogue", (rows, 320, "float16"), NAMES, MEASURED) == expected


def test_a_shape_far_away_or_of_another_dtype_tells_nothing() -> None:
    assert predict("linear_epilogue", (8192, 32, "float16"), NAMES, MEASURED) is None
    assert predict("linear_epilogue", (8192, 320, "float32"), NAMES, MEASURED) is None
    assert predict("linear_epilogue", (8192, 320), NAMES, MEASURED) is None
    assert predict("linear_epilogue", (1, 2), NAMES, {}) is None


def test_of_a_measured_shape_its_own_times_count_alone() -> None:
    measured = {(1000, 320): {"library": 1.0, "small": 1.1}} | {
        (rows, 320): {"library": 9.0, "small": 1.0} for rows in (999, 1001)
    }
    assert predict("linear_epilogue", (1000, 320), ("library", "small"), measured) == "library"
    assert predict("linear_epilogue", (1002, 320), ("library", "small"), measured) == "small"


def test_only_names_that_are_offered_and_were_measured_can_be_expected() -> None:
    assert predict("linear_epilogue", (1024, 320, "float16"), ("library", "new"), MEASURED) == "library"
    assert predict("linear_epilogue", (1024, 320, "float16"), ("new",), MEASURED) is None
    zero = {(1024, 320): {"library": 0.0, "small": 1.0}}  # rounded to nothing by a table
    assert predict("linear_epilogue", (1024, 320), NAMES, zero) is None


def test_a_convolution_is_near_another_with_as_many_places() -> None:
    def key(batch: int, side: int, kernel: int) -> tuple[object, ...]:
        return (batch, 64, side, side, 64, kernel, 1, 1, True, False, False, "none", "float16")

    measured = {key(4, 32, 3): {"cudnn": 1.0, "tile": 2.0}, key(1, 32, 3): {"cudnn": 2.0, "tile": 1.0}}
    assert predict("conv2d_epilogue", key(1, 64, 3), ("cudnn", "tile"), measured) == "cudnn"
    assert predict("conv2d_epilogue", key(1, 64, 1), ("cudnn", "tile"), measured) is None


def test_sizes_differ_by_doublings_and_all_else_altogether() -> None:
    assert distance((8, 3, True), (32, 3, True)) == 2
    assert distance((2, 2), (4, 4)) == pytest.approx(math.sqrt(2))
    assert distance((0,), (1,)) == 0
    assert distance((8, True), (8, False)) == distance((8, 1), (8, True)) == math.inf


def test_what_was_measured_chooses_for_near_keys_and_a_refusal_ends_it() -> None:
    choices, offered = ImplementationChoices(), dict.fromkeys(NAMES)
    choices.learn(("linear_epilogue", key, times) for key, times in MEASURED.items())
    near = (1100, 320, "float16")
    assert choices.pick("linear_epilogue", near, offered, "library", ()) == "small"
    choices.refuse("linear_epilogue", near, "small", RuntimeError("no"))
    assert choices.pick("linear_epilogue", near, offered, "small", ()) == "library"
    assert choices.pick("another", near, offered, "library", ()) == "library"
    choices.tuner = lambda *_: None  # its time is spent
    assert choices.pick("linear_epilogue", (7000, 320, "float16"), offered, "library", ()) == "wide"
    choices.learn([])  # the tables of another run
    assert choices.pick("linear_epilogue", (1200, 320, "float16"), offered, "library", ()) == "library"


def test_what_was_wrong_at_a_near_shape_is_never_expected() -> None:
    measured = {(1024, 320): {"library": 2.0, "small": math.inf}, (2048, 320): {"library": 2.0, "small": 1.0}}
    assert predict("linear_epilogue", (2000, 320), ("library", "small"), measured) == "library"
