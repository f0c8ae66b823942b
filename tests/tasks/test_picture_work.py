"""Tasks about given pictures, without a prompt."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from modules.controlnet.preprocessors import softedge
from modules.core.errors import Cancelled, OptionsError
from modules.core.progress import CancelToken
from modules.generation.metadata.recall import recall_texts
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.images.metadata import texts_of
from modules.tasks.kinds import run_task
from modules.tasks.task import DrawHint, Enlarge
from tests.tiny_project import save_photo, session_at
from tests.upscalers import esrgan_tensors


@pytest.fixture
def session(model_root: Path) -> Session:
    return session_at(model_root)


def made_of(task: Enlarge | DrawHint, session: Session) -> list[Any]:
    return [result.picture for result in run_task(task, session, lambda event: None, CancelToken())]


def saved_with(path: Path, **texts: str) -> Path:
    """Saves a picture with these texts in it."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.open(save_photo(path)).save(path, pnginfo=info)
    return path


def texts_in(picture: Any) -> dict[str, str]:
    with Image.open(io.BytesIO(picture.encoded().png)) as image:
        return texts_of(image)


def test_lanczos_is_pillows(session: Session, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "photo.png", 64, 32)
    (larger,) = made_of(Enlarge(images=(path,), scale=1.5), session)
    expected = Image.open(path).resize((96, 48), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(larger.image), np.asarray(expected))


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"scale": 1.5}, (96, 48)),
        ({"width": 100, "height": 100}, (100, 100)),
        ({"width": 100, "height": 100, "crop": False}, (200, 100)),
    ],
)
def test_the_size_of_the_result(asked: dict[str, Any], size: tuple[int, int]) -> None:
    assert Enlarge(images=(), **asked).target((64, 32)) == size


def test_an_upscaler_file_is_used_and_its_factor_corrected(session: Session, model_root: Path, tmp_path: Path) -> None:
    save_file(esrgan_tensors(), model_root / "models" / "upscalers" / "sharp.safetensors")
    path, events = save_photo(tmp_path / "photo.png"), []
    task = Enlarge(images=(path, path), scale=2.0, method="sharp")
    pictures = [made.picture.image for made in run_task(task, session, events.append, CancelToken())]
    expected = session.upscaler("sharp")(Image.open(path)).resize((128, 128), Image.Resampling.LANCZOS)
    assert all(np.array_equal(np.asarray(picture), np.asarray(expected)) for picture in pictures)
    assert {(event.phase, event.batch, event.batches) for event in events} == {("enlarging", 1, 2), ("enlarging", 2, 2)}


def test_settings_stay_readable_and_say_what_enlarged_it(session: Session, tmp_path: Path) -> None:
    settings = "a cat\nNegative prompt: dog\nSteps: 4, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"
    ours = saved_with(tmp_path / "ours.png", parameters=settings, Title="mine")
    (larger,) = made_of(Enlarge(images=(ours,)), session)
    texts = texts_in(larger)
    assert texts["parameters"] == f"{settings}, Postprocess upscale by: 2, Postprocess upscaler: lanczos"
    assert texts["Title"] == "mine" and larger.seed == 5 and larger.request_seed is None
    again = recall_texts(texts)
    assert (again.options.prompt, again.options.seed, again.options.negative_prompt) == ("a cat", 5, "dog")


@pytest.mark.parametrize("texts", [{"prompt": '{"1": {}}', "workflow": "{}"}, {"parameters": '{"sui": 1}'}, {}])
def test_other_programs_texts_stay_as_they_are(session: Session, tmp_path: Path, texts: dict[str, str]) -> None:
    path = saved_with(tmp_path / "other.png", **texts)
    (larger,) = made_of(Enlarge(images=(path,), width=80, height=40), session)
    told = "Postprocess upscale to: 80x40, Postprocess crop to: 80x40, Postprocess upscaler: lanczos"
    assert texts_in(larger) == {**texts, "postprocessing": told}


def test_a_bad_picture_does_not_stop_the_others(session: Session, tmp_path: Path) -> None:
    good, bad, long = save_photo(tmp_path / "good.png"), tmp_path / "bad.png", tmp_path / "long.png"
    bad.write_bytes(b"no picture")
    Image.new("RGB", (5000, 8)).save(long)
    done: list[Any] = []
    with pytest.raises(OptionsError, match="2 of 4 pictures could not be enlarged") as raised:
        for result in run_task(Enlarge(images=(bad, good, long, good)), session, lambda event: None, CancelToken()):
            done.append(result)
    assert len(done) == 2 and str(tmp_path) not in str(raised.value)
    assert '"bad.png" is not a picture' in str(raised.value)
    assert '"long.png" cannot have this size: width 10000 is out of range' in str(raised.value)


def test_cancel_stops_within_a_picture(session: Session, model_root: Path, tmp_path: Path) -> None:
    save_file(esrgan_tensors(), model_root / "models" / "upscalers" / "sharp.safetensors")
    cancel, steps = CancelToken(), []

    def told(event: Progress) -> None:
        steps.append(event.step)
        if event.step:
            cancel.cancel()

    path = save_photo(tmp_path / "wide.png", 1024, 64)
    with pytest.raises(Cancelled):
        list(run_task(Enlarge(images=(path,), scale=1.0, method="sharp"), session, told, cancel))
    assert steps == [0, 1]


def test_a_hint_is_what_the_preprocessor_draws(session: Session, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "photo.png")
    (hint,) = made_of(DrawHint(image=path, width=64, height=64, preprocessor="softedge"), session)
    assert np.array_equal(np.asarray(hint.image), np.asarray(softedge(Image.open(path))))


def test_what_cannot_be_asked_for() -> None:
    wrongs = ({"scale": 0}, {"width": 8}, {"width": 0, "height": 8}, {"width": 8, "height": 10**6})
    for wrong in (*wrongs, {"method": "bislerp"}):
        with pytest.raises(OptionsError):
            Enlarge(images=(Path("x.png"),), **wrong)
    with pytest.raises(OptionsError, match="zork"):
        DrawHint(image=Path("x.png"), width=8, height=8, preprocessor="zork")
