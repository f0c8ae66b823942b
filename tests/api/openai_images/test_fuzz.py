"""Five hundred bodies that no client of OpenAI's should send: each is answered in OpenAI's form, and none breaks us."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api.asgi import Caller, desk_without_engine
from tests.api.test_fuzz import Maker
from tests.tiny_project import project

BODIES = 250  # of each kind
BOUNDARY = "between"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
NAMES = (
    "prompt", "model", "n", "size", "quality", "response_format", "output_format", "output_compression", "background",
    "style", "moderation", "stream", "partial_images", "seed", "steps", "cfg_scale", "negative_prompt", "sampler",
    "scheduler", "strength", "input_fidelity", "svg", "user",
)  # fmt: skip
CHOSEN: dict[str, tuple[Any, ...]] = {
    "model": ("gpt-image-1", "tiny", "zork"),
    "size": ("auto", "64x64", "64x", "0x0", "99999x99999"),
    "quality": ("hd", "best"),
    "response_format": ("url", "file"),
    "output_format": ("webp", "gif"),
    "stream": (True, False, "maybe"),
    "n": (1, 10, 11),
}


class Bodies:
    """Makes bodies of both endpoints, the same ones for the same seed."""

    def __init__(self, photo: bytes, mask: bytes) -> None:
        self._maker = Maker(2, base64.b64encode(photo).decode())
        self._dice = self._maker.dice
        self._files = (photo, photo, mask, photo[:100], photo[:-20], b"", b"GIF89a")

    def as_json(self) -> bytes:
        return self._damaged(json.dumps({"prompt": "a cat", "size": "64x64", **self._fields()}).encode())

    def as_form(self) -> bytes:
        fields = {"prompt": "a cat", **self._fields()}
        parts = [(name, as_text(value).encode("utf-8", "replace"), "") for name, value in fields.items()]
        parts += [("image", self._dice.choice(self._files), "a.png")]
        for name in self._dice.sample(("image", "image[]", "mask", "mask", "prompt"), self._dice.choice((0, 0, 1, 2))):
            parts.append((name, self._dice.choice(self._files), self._dice.choice(("", "b.png", "../../b.png"))))
        return self._damaged(b"".join(part(*each) for each in parts) + f"--{BOUNDARY}--\r\n".encode())

    def _fields(self) -> dict[str, Any]:
        names = self._dice.sample(NAMES, self._dice.randrange(4))
        return {name: self._dice.choice((*CHOSEN.get(name, ()), self._maker.value())) for name in names}

    def _damaged(self, body: bytes) -> bytes:
        if self._dice.random() > 0.1:
            return body
        cut = self._dice.randrange(len(body))
        return body[:cut] + self._dice.choice((b"", b"\xff", b"\r\n", b"[" * 5000)) + body[cut + 1 :]


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def part(name: str, value: bytes, file: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
    return head.encode() + b"\r\n\r\n" + value + b"\r\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture
def bodies(root: Path) -> Bodies:
    clear = Image.new("RGBA", Image.open(root / "photo.png").size)
    clear.save(root / "clear.png")
    return Bodies((root / "photo.png").read_bytes(), (root / "clear.png").read_bytes())


@pytest.mark.parametrize(("path", "make", "kind"), [(GENERATIONS, Bodies.as_json, ""), (EDITS, Bodies.as_form, FORM)])
def test_no_body_breaks_it(root: Path, bodies: Bodies, path: str, make: Callable[[Bodies], bytes], kind: str) -> None:
    sent = [make(bodies) for _ in range(BODIES)]
    answers = Caller(desk_without_engine(root)).call([("POST", path, body) for body in sent], kind)
    for body, (status, told) in zip(sent, answers, strict=True):
        assert status in (200, 400), (body[:500], told)
        if status == 400:
            sentence = told["error"]["message"]
            assert sentence.isprintable() and sentence[-1] in ".?!" and len(sentence) < 1000, sentence
            assert str(root) not in sentence
    statuses = [status for status, _ in answers]
    assert statuses.count(400) > BODIES / 4 and statuses.count(200) > BODIES / 20
