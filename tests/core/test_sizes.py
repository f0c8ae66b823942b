"""Two numbers in one text: a size and a corner."""

from __future__ import annotations

import pytest

from modules.core.errors import OptionsError
from modules.core.sizes import nearest_size, read_crop, read_original_size


def test_sizes_and_corners() -> None:
    assert read_original_size("1024x768") == read_original_size(" 1024 X 768 ") == (1024, 768)
    assert read_crop("0,128") == read_crop("0, 128") == (0, 128)
    assert read_original_size(None) is None and read_crop(None) is None


def test_the_nearest_size() -> None:
    assert nearest_size((1537, 771)) == (1536, 768) and nearest_size((516.5, 3)) == (520, 8)


@pytest.mark.parametrize("text", ["", "1024", "0x512", "512x", "-1x5", "1.5x2", "512,512", "999999x1", "a" * 1000])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(OptionsError, match="original size .* two numbers of pixels from 1 to 99999, .* 1024x768"):
        read_original_size(text)


@pytest.mark.parametrize("text", ["", "5", "0x5", "-1,5", "1,2,3"])
def test_what_is_not_a_corner(text: str) -> None:
    with pytest.raises(OptionsError, match="crop .* from 0 to 99999, for example 0,128"):
        read_crop(text)
