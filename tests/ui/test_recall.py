"""What a recalled picture says beside the form, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.metadata.recall import Recalled
from modules.generation.options import ControlChoice, GenerationOptions
from modules.tasks.queue import GenerationQueue
from ui import recall
from ui.events.handlers import Handlers
from ui.settings import SettingsFile


def no_session() -> Any:
    raise AssertionError("nothing is generated here")


@pytest.fixture
def handlers(tmp_path: Path) -> Handlers:
    folders, output = ModelFolders(tmp_path), OutputFolder(tmp_path / "output")
    return Handlers(GenerationQueue(no_session), folders, output, SettingsFile(tmp_path / "settings.json"))


@pytest.mark.parametrize(("count", "said"), [(2, False), (4, True)])
def test_controlnets_beyond_the_form_are_named(
    handlers: Handlers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, *, said: bool
) -> None:
    picture = tmp_path / "made.png"
    picture.touch()
    controls = tuple(ControlChoice(name=f"net {number}", image=picture) for number in range(1, count + 1))
    found = Recalled(options=GenerationOptions(prompt="x", controls=controls), left_out="")
    monkeypatch.setattr(recall, "read_options", lambda *_: found)
    update = recall.Recall(handlers).use("picture", str(picture))
    assert update["control_2"] == "net 2"
    assert ("The form has room for 2 ControlNets; left out: net 3, net 4." in update["picture_message"]) is said
