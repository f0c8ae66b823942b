"""Files mentioned in a request are looked up before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import LightDiffusionError
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.text.embedding_names import EmbeddingNames
from tests import tiny_project


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path_factory.mktemp("checks")))


PHOTO = Path(__file__)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"prompt": "a <lora:nope:1>"}, "nope"),
        ({"prompt": "a <lyco:nope:0.5>"}, "nope"),
        ({"prompt": "a <lora:ink:much>"}, "ink:much"),
        ({"prompt": "a (embedding:nope:1.2)"}, '"nope"'),
        ({"negative_prompt": "embedding:nope"}, '"nope"'),
        ({"loras": (LoraChoice(name="nope"),)}, "nope"),
        ({"controls": (ControlChoice(name="nope", image=PHOTO),)}, "nope"),
        ({"controls": (ControlChoice(name="edges", image=Path("nope.png")),)}, "nope.png"),
        ({"init": InitImage(image=PHOTO)}, PHOTO.name),
        ({"hires": HiresOptions(method="nope")}, "Methods without a file: lanczos"),
        ({"hires": HiresOptions(sampler="nope")}, "--list samplers"),
        ({"scheduler": "nope"}, "--list schedulers"),
        ({"text_encoders": ("nope",)}, "nope"),
        ({"vae": "nope"}, "nope"),
        ({"refiner": "nope"}, "nope"),
        ({"refiner_start": 0.8}, "--refiner-start needs a refiner: give it with --refiner NAME"),
    ],
)
def test_errors_are_reported_before_anything_is_loaded(
    session: Session, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], word: str
) -> None:
    monkeypatch.setattr(Session, "model", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr(Session, "upscaler", lambda *_: pytest.fail("loaded"))
    with pytest.raises(LightDiffusionError, match=word):
        next(iter(generate(GenerationOptions(**{"prompt": "a", **changes}), session)))


def test_an_embedding_is_found_as_the_emphasis_reads_its_name(session: Session) -> None:
    library = EmbeddingNames(session.folders)
    (session.folders.folders("embeddings")[0] / "a(b).pt").touch()
    library.check([r"embedding:a\(b\), (embedding:a\(b\):1.2)"], "a1111")
    library.check(["a cat", "embedding:a(b)"], "off")
    with pytest.raises(LightDiffusionError, match="embedding"):
        library.check(["a cat", "embedding:a(b)"], "a1111")
