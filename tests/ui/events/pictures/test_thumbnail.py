"""A finished picture becomes the thumbnail of its models, and replaces another one only after a question."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.session import Session
from modules.tasks.queue import TaskQueue
from tests.catalog.header_files import save_header
from ui.events.handlers import Handlers
from ui.events.pictures.thumbnail import Saving
from ui.settings import SettingsFile

TEXT = "a cat <lora:styles/ink:0.5>\nSteps: 4, Sampler: Euler a, CFG scale: 6, Seed: 5, Size: 128x128, Model: base"


@pytest.fixture
def saving(model_root: Path) -> Saving:
    save_header(model_root / "models" / "checkpoints" / "base.safetensors")
    save_header(model_root / "models" / "loras" / "styles" / "ink.safetensors")
    save_header(model_root / "models" / "loras" / "other.safetensors")
    folders, output = ModelFolders(model_root, names_only=True), OutputFolder(model_root / "output")
    queue = TaskQueue(lambda: Session(folders, device="cpu"), output)
    return Saving(Handlers(queue, folders, output, SettingsFile(model_root / "s.json", output.folder)))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    info = PngInfo()
    info.add_text("parameters", TEXT)
    Image.new("RGB", (1024, 512), "red").save(tmp_path / "a.png", pnginfo=info)
    return str(tmp_path / "a.png")


def test_it_is_saved_beside_its_models_without_its_settings(saving: Saving, picture: str, model_root: Path) -> None:
    update = saving.save("picture", picture)
    assert "thumbnail of base, ink." in update["picture_message"] and not update["picture_replace"].visible
    saved = sorted(model_root.rglob("*.preview.png"))
    assert [path.name for path in saved] == ["base.preview.png", "ink.preview.png"]
    with Image.open(saved[0]) as small:
        assert small.size == (512, 256) and small.info == {}


def test_another_thumbnail_is_replaced_only_after_the_question(saving: Saving, picture: str, model_root: Path) -> None:
    own = model_root / "models" / "loras" / "styles" / "ink.jpg"
    Image.new("RGB", (64, 64), "blue").save(own)
    before = own.read_bytes()
    update = saving.save("picture", picture)
    assert update["picture_replace"].visible and "of ink?" in update["picture_replace_words"]
    assert own.read_bytes() == before and "of base." in update["picture_message"]
    update = saving.replace("picture", picture)
    assert not update["picture_replace"].visible and "base, ink" in update["picture_message"]
    with Image.open(own) as replaced:
        assert replaced.format == "JPEG" and replaced.size == (512, 256)
    assert not own.with_name("ink.preview.png").exists()


def test_a_file_of_that_name_is_never_overwritten_unasked(saving: Saving, picture: str, model_root: Path) -> None:
    link = model_root / "models" / "checkpoints" / "base.preview.png"
    link.symlink_to(model_root / "nowhere.png")
    assert "exists already" in saving.save("picture", picture)["picture_message"]
    assert link.is_symlink() and not (model_root / "nowhere.png").exists()


def test_missing_files_are_a_sentence(saving: Saving, picture: str, model_root: Path) -> None:
    assert "ld-error" in saving.save("picture", str(model_root / "gone.png"))["picture_message"]
    (model_root / "models" / "loras" / "styles" / "ink.safetensors").unlink()
    for update in (saving.save("history", picture), saving.replace("history", picture)):
        assert "ink" in update["history_message"] and "ld-error" in update["history_message"]
    assert not list(model_root.rglob("*.preview.png"))
