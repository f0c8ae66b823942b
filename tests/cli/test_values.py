"""Parsers of option values: accepted values, and the reasons for refusing others."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.values import either, number, one_of, path, port, whole


@pytest.mark.parametrize(("text", "value"), [("7", 7), (" -3 ", -3), ("+12", 12), ("007", 7)])
def test_whole_numbers(text: str, value: int) -> None:
    assert whole(text) == value


@pytest.mark.parametrize(
    ("read", "text", "reason"),
    [
        (whole, "1.5", "is not a whole number"),
        (whole, "1e3", "is not a whole number"),
        (whole, "many", "is not a number"),
        (whole, "", "is not a number"),
        (whole, "9" * 500, "is out of range"),
        (number, "strong", "is not a number"),
        (path, "", "the path is empty"),
        (path, "a" * 5000, "longer than this system allows"),
        (path, "a\0b", "a"),
        (port, "0", "is not a port: choose one from 1 to 65535"),
        (port, "65536", "is not a port"),
    ],
)
def test_what_cannot_be_read_says_why(read: Callable[[str], object], text: str, reason: str) -> None:
    with pytest.raises(ArgumentTypeError, match=reason) as error:
        read(text)
    assert len(str(error.value)) < 300 and str(error.value).isprintable()


def test_numbers_paths_and_ports() -> None:
    assert number("-0.25") == -0.25 and number("9" * 500) == float("inf")
    assert path("not there/yet.png") == Path("not there/yet.png")
    assert port("1") == 1 and port("65535") == 65535


def test_one_of_several_names() -> None:
    read = one_of(("off", "graph", "fused"))["type"]
    assert read("graph") == "graph" and either(("a", "b", "c")) == "a, b or c"
    with pytest.raises(ArgumentTypeError, match=r"choose off, graph or fused \(did you mean fused\?\)"):
        read("FUSE")
    with pytest.raises(ArgumentTypeError) as error:
        read("12")
    assert "did you mean" not in str(error.value)
