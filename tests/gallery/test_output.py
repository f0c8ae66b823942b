"""Tests the output folder: pictures with their text, the last seed, and early errors if writing is not possible."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError, OutputError
from modules.gallery.output import LAST_SEED, OutputFolder
from modules.gallery.picture import Picture
from modules.images.save import read_parameters


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "output")


def picture(seed: int, request_seed: int) -> Picture:
    return Picture(
        image=Image.new("RGB", (8, 8), "navy"), seed=seed, request_seed=request_seed, parameters="a cat\nSteps: 1"
    )


def test_a_picture_is_saved_with_its_text_and_the_requests_seed_is_noted(output: OutputFolder) -> None:
    first, second = output.save(picture(7, 7)), output.save(picture(8, 7))
    assert first != second and first.parent == second.parent and first.parent.parent == output.folder
    assert read_parameters(second) == "a cat\nSteps: 1" and Image.open(second).getpixel((0, 0)) == (0, 0, 128)
    assert output.last_seed() == 7


def test_without_an_earlier_picture_there_is_no_seed(output: OutputFolder) -> None:
    with pytest.raises(OptionsError, match="no earlier picture"):
        output.last_seed()
    output.check_writable()
    (output.folder / LAST_SEED).write_text('{"seed": "x"}')
    with pytest.raises(OptionsError, match="unreadable"):
        output.last_seed()


def test_checking_makes_the_folder_and_leaves_nothing_in_it(output: OutputFolder) -> None:
    output.check_writable()
    assert list(output.folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(output: OutputFolder) -> None:
    output.folder.write_bytes(b"a file")
    with pytest.raises(OutputError, match="--output-dir"):
        output.check_writable()


def test_a_seed_that_cannot_be_noted_loses_no_picture(output: OutputFolder, caplog: pytest.LogCaptureFixture) -> None:
    (output.folder / LAST_SEED / "in the way").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert output.save(picture(7, 7)).exists()
    assert "--reuse-seed" in caplog.text
