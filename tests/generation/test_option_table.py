"""The table of plain options agrees with the fields of a request."""

from __future__ import annotations

import typing

import pytest

from modules.core.errors import OptionsError
from modules.generation.option_table import PLAIN_OPTIONS, Option
from modules.generation.options import GenerationOptions

TYPES = {"whole": int, "number": float, "text": str}


@pytest.mark.parametrize("option", PLAIN_OPTIONS, ids=lambda option: option.name)
def test_a_row_is_of_its_fields_kind(option: Option) -> None:
    expected = typing.get_type_hints(GenerationOptions)[option.name]
    assert expected in (TYPES[option.kind], TYPES[option.kind] | None)


@pytest.mark.parametrize(
    "option", [option for option in PLAIN_OPTIONS if option.limits], ids=lambda option: option.name
)
def test_the_limits_of_a_row_are_those_of_the_request(option: Option) -> None:
    low, high = option.limits or (0, 0)
    for value in (low, high):
        assert getattr(GenerationOptions(prompt="x", **{option.name: value}), option.name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(OptionsError, match="out of range"):
            GenerationOptions(prompt="x", **{option.name: value})


def test_names_flags_and_keys_belong_to_one_row_each() -> None:
    names = [name for option in PLAIN_OPTIONS for name in (option.name, option.flag, *option.aliases)]
    keys = [option.key for option in PLAIN_OPTIONS if option.key]
    assert len(set(names)) == len(names) and len(set(keys)) == len(keys)
