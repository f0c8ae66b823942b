"""Named sizes are recognised by their primes in any literal, and nothing else is mistaken for a named size."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.graph.sizes import SizeError, Sizes, choose_primes, measure, parse_dim


def test_literals_are_products_of_named_sizes() -> None:
    sizes = Sizes({"batch": 101, "height": 103, "width": 107})
    actual = {"batch": 2, "height": 8, "width": 4}
    assert sizes.replace(101 * 320, actual) == 640
    assert sizes.replace(8 * 103 * 8 * 107, actual) == 64 * 32
    assert sizes.replace(103 * 103, actual) == 64
    assert sizes.replace(320, actual) == 320
    assert sizes.replace(-1, actual) == -1
    assert sizes.replace(2**63 - 1, actual) == 2**63 - 1


@pytest.mark.parametrize("height", [0, 1, 101, 103, 2 * 103, 103 * 107])
@pytest.mark.parametrize("width", [0, 1, 101, 103, 107])
def test_actual_sizes_may_hold_primes_themselves(height: int, width: int) -> None:
    sizes = Sizes({"batch": 101, "height": 103, "width": 107})
    actual = {"batch": 103, "height": height, "width": width}
    assert sizes.replace(8 * 103 * 107, actual) == 8 * height * width
    assert sizes.replace(101 * 101 * 107, actual) == 103 * 103 * width
    assert sizes.replace(-103, actual) == -height


def test_primes_divide_no_fixed_size() -> None:
    sizes, *_ = choose_primes({"a", "b"}, {101 * 3, 77, 107})
    assert set(sizes.primes.values()) == {103, 109}


def test_measuring_inputs() -> None:
    dims = {"x": ("batch", None, "8*height"), "y": ("batch",)}
    found = measure(dims, {"x": torch.empty(2, 5, 24), "y": torch.empty(2)})
    assert found == {"batch": 2, "height": 3}
    assert parse_dim("64*height") == (64, "height")


@pytest.mark.parametrize("shape", [(2, 5, 25), (3, 5, 24)])
def test_sizes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    dims = {"x": ("batch", None, "8*height"), "y": ("batch",)}
    with pytest.raises(SizeError, match="input"):
        measure(dims, {"x": torch.empty(shape), "y": torch.empty(2)})
