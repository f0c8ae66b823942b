"""What the queue does: a grid that cannot be finished is not begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import LightDiffusionError
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions, HiresOptions
from modules.generation.session import Session
from modules.tasks.grid import read_axis
from modules.tasks.kinds import make_grid
from modules.tasks.task import Ticket

OPTIONS = GenerationOptions(prompt="x red", width=64, height=64, steps=1, seed=1)


@pytest.mark.parametrize(
    ("option", "values", "words"),
    [
        ("checkpoint", "tiny, nothing", "nothing"),
        ("vae", "nothing", "nothing"),
        ("replace", "red, <lora:nothing:1>", "nothing"),
        ("sampler", "euler, eulr", "eulr"),
        ("height", "64, 8192", "megapixels"),
    ],
)
def test_what_is_missing_is_told_before_the_first_picture(
    session: Session, tmp_path: Path, option: str, values: str, words: str
) -> None:
    ticket = Ticket(label="grid")
    columns = read_axis("width", "64, 8192, 8192") if option == "height" else read_axis("steps", "1")
    with pytest.raises(LightDiffusionError, match=words):
        make_grid(OPTIONS, columns, read_axis(option, values), OutputFolder(tmp_path))(session, ticket)
    assert ticket.pace is None and not ticket.pictures


def test_a_grid_is_one_picture_with_each_in_its_place(session: Session, tmp_path: Path) -> None:
    """Both passes of HiresFix would be two for each place."""
    ticket = Ticket(label="grid")
    options = GenerationOptions(
        prompt="x", width=64, height=64, steps=1, seed=1, hires=HiresOptions(steps=1, keep_first_pass=True)
    )
    make_grid(options, read_axis("seed", "1, 2"), None, OutputFolder(tmp_path))(session, ticket)
    with Image.open(ticket.pictures[0]) as sheet:
        assert len(ticket.pictures) == 1 and 2 * 128 < sheet.width < 300 and 128 < sheet.height < 180
