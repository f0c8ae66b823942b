"""Tests that styles are found in a finished prompt, and that they give the same prompt again."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.catalog.styles import Style, write_styles
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.wording.recognised_styles import recognised_styles
from modules.generation.wording.spelled_out import with_styles

STYLES = [
    Style(name="ink", prompt="ink drawing, white paper", negative_prompt="colour"),
    Style(name="photo", prompt="photo of {prompt}, 35 mm"),
    Style(name="nothing"),
    Style(name="clean", negative_prompt="blurry"),
]


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    folders = ModelFolders(tmp_path)
    write_styles(folders, STYLES)
    return folders


@pytest.mark.parametrize("names", [(), ("ink",), ("photo",), ("ink", "photo"), ("photo", "ink"), ("clean", "ink")])
@pytest.mark.parametrize("prompt", ["", "a cat", "a cat, 35 mm"])
def test_finds_the_styles_that_were_added(folders: ModelFolders, names: tuple[str, ...], prompt: str) -> None:
    asked = GenerationOptions(prompt=prompt, negative_prompt="text", styles=names)
    finished = with_styles(asked, folders)
    found = recognised_styles(finished, folders)
    assert set(found.styles) == set(names)
    assert with_styles(found, folders) == finished


def test_a_style_in_one_prompt_only_is_plain_text(folders: ModelFolders) -> None:
    options = GenerationOptions(prompt="a cat, ink drawing, white paper")
    assert recognised_styles(options, folders) == options
