"""Model folders with dangling and circular links: every kind of model is refused with one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from modules.core.errors import ModelFileError
from modules.generation.options import ControlChoice, GenerationOptions, LoraChoice
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests import tiny_project

BROKEN = "broken.safetensors"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path_factory.mktemp("links")))


@pytest.mark.parametrize("target", ["/nosuch/file", BROKEN])
@pytest.mark.parametrize(
    ("kind", "choice"),
    [
        ("checkpoints", {"checkpoint": BROKEN}),
        ("vae", {"vae": BROKEN}),
        ("text_encoders", {"text_encoders": (BROKEN,)}),
        ("loras", {"loras": (LoraChoice(name=BROKEN),)}),
        ("controlnet", {}),
    ],
)
def test_a_link_that_leads_nowhere_is_told(session: Session, kind: str, choice: dict[str, Any], target: str) -> None:
    link = session.folders.folders(kind)[0] / BROKEN
    link.symlink_to(target)
    values: dict[str, Any] = {"checkpoint": "tiny.safetensors"} | choice
    if kind == "controlnet":
        values["controls"] = (ControlChoice(name=BROKEN, image=session.folders.root / "photo.png"),)
    try:
        with pytest.raises(ModelFileError, match=BROKEN):
            list(generate(GenerationOptions(prompt="a", width=64, height=64, steps=1, **values), session))
    finally:
        link.unlink()
