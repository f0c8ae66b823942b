"""OpenAI's own SDK against a started server: pictures, edits, streams, models, and mistakes in its own errors."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from PIL import Image, ImageChops
from starlette.applications import Starlette

from api.desk import Desk
from api.guard.access import Access
from api.mount import routes
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.tasks import queued_task
from modules.tasks.queue import TaskQueue
from tests.tiny_project import project, session_at

SMALL: dict[str, Any] = {"size": "64x64", "extra_body": {"steps": 2, "seed": 5}}
KEY = "a-secret"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = project(tmp_path_factory.mktemp("openai"))
    output = OutputFolder(root / "output")
    queue = TaskQueue(lambda: session_at(root), output)
    yield Desk(queue, ModelFolders(root), output)
    queue.close()


@pytest.fixture(scope="module")
def address(desk: Desk) -> Iterator[str]:
    config = uvicorn.Config(Starlette(routes=routes(desk, Access(key=KEY))), log_level="error")
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key=KEY, max_retries=0)


def picture(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_arrive_with_their_settings_and_are_not_kept(client: openai.OpenAI, desk: Desk) -> None:
    made = client.images.generate(model="tiny", prompt="a red circle", n=2, **SMALL)
    assert made.data is not None
    first, second = (picture(item.b64_json) for item in made.data)
    assert first.size == second.size == (64, 64)
    assert "Seed: 5" in first.info["parameters"]
    assert "Seed: 6" in second.info["parameters"]
    assert not list(desk.output.folder.rglob("*.png"))


def test_a_name_of_openais_means_the_default_checkpoint(client: openai.OpenAI) -> None:
    own = client.images.generate(model="tiny.safetensors", prompt="a red circle", **SMALL)
    theirs = client.images.generate(model="gpt-image-2", prompt="a red circle", quality="high", **SMALL)
    assert own.data and theirs.data
    assert own.data[0].b64_json == theirs.data[0].b64_json


def test_quality_stands_for_steps_unless_steps_are_given(client: openai.OpenAI) -> None:
    made = client.images.generate(prompt="x", quality="low", style="natural", size="64x64")
    assert made.data
    assert "Steps: 12," in picture(made.data[0].b64_json).info["parameters"]


@pytest.mark.parametrize(("output", "form"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_and_data_urls(client: openai.OpenAI, output: Any, form: str) -> None:
    made = client.images.generate(
        prompt="x", output_format=output, output_compression=80, response_format="url", **SMALL
    )
    assert made.data and made.data[0].url
    head, _, text = made.data[0].url.partition(",")
    assert head == f"data:image/{output};base64"
    assert picture(text).format == form


def test_a_stream_brings_previews_and_then_the_picture(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_task, "PREVIEW_SECONDS", 0.0)
    slow = SMALL | {"extra_body": {"steps": 6, "seed": 5}}
    events = list(client.images.generate(prompt="a red circle", stream=True, partial_images=1, **slow))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert all(picture(event.b64_json).size == (64, 64) for event in events)
    whole = client.images.generate(prompt="a red circle", **slow)
    assert whole.data
    assert events[-1].b64_json == whole.data[0].b64_json


def test_only_the_transparent_part_is_repainted(client: openai.OpenAI, tmp_path: Path) -> None:
    photo = Image.effect_noise((64, 64), 60).convert("RGB")
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
    made = client.images.edit(image=("photo.png", png(photo)), mask=("mask.png", png(mask)), prompt="a hat", **SMALL)
    assert made.data
    changed = ImageChops.difference(picture(made.data[0].b64_json).convert("RGB"), photo)
    assert changed.crop((0, 0, 16, 64)).getbbox() is None
    assert changed.crop((48, 0, 64, 64)).getbbox() is not None


def test_an_opaque_picture_without_a_mask_is_repainted_as_a_whole(client: openai.OpenAI) -> None:
    photo = Image.effect_noise((72, 66), 60).convert("RGB")
    made = client.images.edit(image=("p.png", png(photo)), prompt="x", extra_body={"steps": 2, "strength": 0.5})
    assert made.data
    result = picture(made.data[0].b64_json)
    assert result.size == (72, 64)
    assert "Denoising strength: 0.5" in result.info["parameters"]


def test_models_are_the_checkpoints(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny.safetensors"]
    for name in ("tiny.safetensors", "tiny"):
        model = client.models.retrieve(name)
        assert (model.id, model.owned_by) == ("tiny.safetensors", "lightdiffusion")
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": "63x64"}, "multiple of 8"),
        ({"size": "big"}, "512x768"),
        ({"n": 11}, "n 11"),
        ({"prompt": " "}, "prompt is missing"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "gif"),
        ({"extra_body": {"steps": "many"}}, "steps"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"svg": {"model": "x"}}, "svg is not supported"),
    ],
)
def test_a_mistake_is_openais_bad_request_with_our_sentence(
    client: openai.OpenAI, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        client.images.generate(**({"prompt": "x", "size": "64x64"} | wrong))
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("image", "mask", "told"),
    [
        (b"no picture", None, "image"),
        (png(Image.new("RGB", (64, 64))), png(Image.new("RGB", (64, 64))), "no transparent part"),
        (png(Image.new("RGB", (64, 64))), png(Image.new("RGBA", (32, 64))), "same size"),
    ],
)
def test_a_wrong_edit_is_a_bad_request(client: openai.OpenAI, image: bytes, mask: bytes | None, told: str) -> None:
    files: dict[str, Any] = {"mask": ("mask.png", mask)} if mask else {}
    with pytest.raises(openai.BadRequestError, match=told):
        client.images.edit(image=("photo.png", image), prompt="x", **files, **SMALL)


def test_an_error_in_a_stream_is_an_error_of_the_sdk(client: openai.OpenAI, desk: Desk) -> None:
    stream = client.images.generate(prompt="x", stream=True, size="64x64", extra_body={"steps": 150})
    while desk.current is None:
        time.sleep(0.01)
    desk.stop()
    assert [event.type for event in stream] == []  # stopped: the pictures there are


def test_a_client_that_hangs_up_stops_its_request(client: openai.OpenAI, desk: Desk) -> None:
    stream = client.images.generate(
        prompt="x", stream=True, partial_images=1, size="64x64", n=10, extra_body={"steps": 150}
    )
    next(iter(stream))
    current = desk.current
    assert current is not None
    stream.close()
    assert current.wait(10)
    assert current.state == "cancelled"


def test_a_wrong_key_is_told(address: str) -> None:
    stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="key"):
        stranger.models.list()
