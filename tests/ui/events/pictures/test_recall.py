"""Tests restoring settings of other programs' pictures: known settings fill the form, and the note lists the rest."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.metadata.recall import Recalled
from modules.generation.options import ControlChoice, GenerationOptions
from modules.generation.session import Session
from modules.tasks.queue import TaskQueue
from ui.events.handlers import Handlers
from ui.events.pictures.recall import Recall
from ui.settings import SettingsFile

A1111 = "a cat\nSteps: 4, Sampler: Euler a, CFG scale: 6, Seed: 5, Size: 128x128, "


@pytest.fixture
def recall(model_root: Path) -> Recall:
    folders, output = ModelFolders(model_root), OutputFolder(model_root / "output")
    queue = TaskQueue(lambda: Session(folders, device="cpu"), output)
    return Recall(Handlers(queue, folders, output, SettingsFile(model_root / "s.json", output.folder)))


def restored(recall: Recall, folder: Path, **texts: str) -> dict[str, Any]:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(folder / "a.png", pnginfo=info)
    return recall.restore(str(folder / "a.png"))


def test_what_cannot_be_followed_is_named(recall: Recall, tmp_path: Path) -> None:
    form = restored(recall, tmp_path, parameters=A1111 + "Variation seed: 7, Variation seed strength: 0.5")
    assert (form["prompt"], form["steps"], form["sampler"], form["seed"]) == ("a cat", 4, "euler_ancestral", "5")
    assert "Variation seed, Variation seed strength" in form["restore_message"] and form["mode"] == "text"


def test_missing_models_are_named_and_the_forms_checkpoint_stays(recall: Recall, tmp_path: Path) -> None:
    text = A1111.replace("a cat", "a cat <lora:gone:1>") + "Model: not-here"
    form = restored(recall, tmp_path, parameters=text)
    assert 'checkpoint named "not-here"' in unescape(form["restore_message"]) and "checkpoint" not in form
    assert 'LoRA named "gone"' in unescape(form["restore_message"]) and form["steps"] == 4


def test_an_older_message_about_the_request_goes(recall: Recall, tmp_path: Path) -> None:
    assert restored(recall, tmp_path, parameters=A1111)["message"] == ""
    assert "message" not in restored(recall, tmp_path, Software="Draw Things 1.0")


def test_image_to_image_waits_for_its_picture(recall: Recall, tmp_path: Path) -> None:
    form = restored(recall, tmp_path, parameters=A1111 + "Denoising strength: 0.3")
    assert form["mode"] == "image" and form["denoise"] == 0.3 and form["editor"] is None
    assert "drop it in again" in form["restore_message"]


def test_a_strangers_picture_is_a_sentence(recall: Recall, tmp_path: Path) -> None:
    form = restored(recall, tmp_path, Software="Draw Things 1.0")
    assert "Draw Things" in form["restore_message"] and "ld-error" in form["restore_message"] and "prompt" not in form


@pytest.mark.parametrize(("count", "said"), [(2, False), (4, True)])
def test_controlnets_beyond_the_form_are_named(
    recall: Recall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, *, said: bool
) -> None:
    picture = tmp_path / "made.png"
    picture.touch()
    controls = tuple(ControlChoice(name=f"net {number}", image=picture) for number in range(1, count + 1))
    found = Recalled(options=GenerationOptions(prompt="x", controls=controls), left_out="")
    monkeypatch.setattr("ui.events.pictures.recall.read_options", lambda *_: found)
    update = recall.use("picture", str(picture))
    assert update["control_2"] == "net 2"
    assert ("The form has room for 2 ControlNets; left out: net 3, net 4." in update["picture_message"]) is said


def test_the_question_before_deleting_names_the_file(recall: Recall) -> None:
    asked = recall.ask("picture", "out/2026-11-29/<b>00004-7.png")
    assert "Delete &lt;b&gt;00004-7.png permanently?" in asked["picture_question"]
