"""The named endpoints, used and misused by a program."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webuiapi
from gradio_client import Client, handle_file
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.generation.metadata.write import from_picture
from modules.images.save import read_parameters
from tests.held_task import HoldTheQueue
from tests.ui.conftest import CANNY, DEMO, PROMPT, Served, run_apart
from ui.api import Api
from ui.events.pictures.recall import Recall

SMALL = {"prompt": PROMPT, "steps": 2, "seed": "3", "checkpoint": DEMO, "width": 128, "height": 128}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    yield Client(served.url, verbose=False)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / 'my photo\'s "best" ü.png'
    pixels = np.random.default_rng().integers(0, 255, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((192, 128)).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """A mask for repainting the right half."""
    path = tmp_path / "mask.png"
    grey = np.zeros((128, 192), dtype=np.uint8)
    grey[:, 96:] = 255
    Image.fromarray(grey).save(path)
    return path


def test_the_client_example_works(client: Client, served: Served) -> None:
    answer = client.predict(prompt=PROMPT, steps=2, seed=3, checkpoint=DEMO, api_name="/text_to_image")
    assert Path(answer["images"][0]) in served.pictures()
    assert answer["seed"] == 3
    assert DEMO in client.predict(kind="checkpoints", api_name="/models")
    assert client.predict(api_name="/queue") == []
    public = set(client.view_api(return_format="dict")["named_endpoints"])
    assert public == {"/text_to_image", "/image_to_image", "/queue", "/cancel", "/models", "/defaults"}


def test_other_programs_speak_to_the_same_server(client: Client, served: Served) -> None:
    webui = webuiapi.WebUIApi(baseurl=f"{served.url}sdapi/v1")
    assert DEMO in webui.util_get_model_names()
    asked = {"prompt": PROMPT, "steps": 2, "seed": 3, "width": 128, "height": 128}
    made = webui.txt2img(**asked, override_settings={"sd_model_checkpoint": DEMO}, save_images=True)
    assert served.pictures()[0].read_bytes() == base64.b64decode(made.json["images"][0])
    same = {**SMALL, "sampler": "euler a", "scheduler": "normal", "other": {"emphasis": "a1111"}}
    ours = client.predict(**same, api_name="/text_to_image")
    assert np.array_equal(np.asarray(Image.open(ours["images"][0])), np.asarray(made.image))


def test_image_to_image_keeps_what_the_mask_leaves(client: Client, photo: Path, mask: Path) -> None:
    asked = {"prompt": PROMPT, "steps": 3, "seed": 7, "checkpoint": DEMO, "denoise": 0.9, "other": {"mask_blur": 0}}
    answer = client.predict(
        image=handle_file(str(photo)), mask=handle_file(str(mask)), **asked, api_name="/image_to_image"
    )
    made, before = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (answer["images"][0], photo))
    assert made.shape == before.shape == (128, 192, 3)
    assert np.array_equal(made[:, :96], before[:, :96])
    assert np.abs(made[:, 100:] - before[:, 100:]).mean() > 5
    init = from_picture(Path(answer["images"][0])).init
    assert init is not None and init.denoise == 0.9 and init.mask is not None


def test_image_to_image_takes_a_result_and_a_size(client: Client, served: Served) -> None:
    first = client.predict(**SMALL, api_name="/text_to_image")["images"][0]
    asked = {"prompt": PROMPT, "steps": 2, "checkpoint": DEMO, "denoise": 0.2, "width": 64, "height": 64}
    answer = client.predict(image=first, **asked, api_name="/image_to_image")
    assert Image.open(answer["images"][0]).size == (64, 64)


def test_a_control_picture_by_program(client: Client, photo: Path) -> None:
    control = {"control_1": CANNY, "control_1_image": handle_file(str(photo)), "control_1_preprocessor": "canny"}
    answer = client.predict(**SMALL, other=control, api_name="/text_to_image")
    assert CANNY in read_parameters(answer["images"][0])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"width": 100}, "multiple of 8"),
        ({"prompt": 5}, 'prompt "5" is of the wrong kind'),
        ({"steps": "many"}, 'steps "many" is of the wrong kind'),
        ({"steps": 10**9}, "out of range"),
        ({"number": 10**9}, "out of range"),
        ({"cfg": None, "sampler": "nothing"}, "nothing"),
        ({"seed": "-5"}, "not a whole number"),
        ({"checkpoint": "../../../../etc/passwd"}, "No checkpoint named"),
        ({"checkpoint": "/etc/passwd"}, "No checkpoint named"),
        ({"prompt": "x <lora:../../../../etc/passwd:1>"}, "named"),
        ({"other": {"vae": "/etc/passwd"}}, "named"),
        ({"other": {"hires": True, "hires_method": "/etc/passwd"}}, "named"),
        ({"other": {"no_such": 1}}, 'no field called "no_such"'),
        ({"other": {"mode": "image"}}, 'no field called "mode"'),
        ({"other": {"editor": {"background": "/etc/passwd"}}}, 'no field called "editor"'),
        ({"other": {"hires_cfg": "x"}}, "wrong kind"),
        ({"other": {"rescale_cfg": 2}}, "rescale cfg 2.0 is out of range"),
        ({"other": {"stable_fast": 1}}, "wrong kind"),
        ({"other": {"control_1": CANNY}}, "has no picture"),
        ({"other": {"control_1": CANNY, "control_1_image": "/etc/passwd"}}, "neither an upload nor"),
        ({"other": {"control_1": CANNY, "control_1_image": "a\0b"}}, "neither an upload nor"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(client: Client, served: Served, asked: dict[str, Any], words: str) -> None:
    before = served.pictures()
    with pytest.raises(Exception, match=words) as raised:
        client.predict(**{**SMALL, **asked}, api_name="/text_to_image")
    assert "Traceback" not in str(raised.value)
    assert served.pictures() == before


def test_pictures_outside_the_output_folder_cannot_be_taken(
    client: Client, served: Served, photo: Path, tmp_path: Path
) -> None:
    inside = served.output / "2000-01-01" / "link.png"
    inside.parent.mkdir(exist_ok=True)
    inside.symlink_to(photo)
    kept = set((served.output / "inputs").glob("*")) if (served.output / "inputs").exists() else set()
    for path in (photo, inside, served.output / ".." / photo.name, tmp_path / "missing.png", served.settings):
        for image in (str(path), {"path": str(path), "meta": {"_type": "other"}}):
            with pytest.raises(Exception, match="neither an upload nor"):
                client.predict(image=image, prompt=PROMPT, checkpoint=DEMO, api_name="/image_to_image")
    inside.unlink()
    inside.parent.rmdir()
    assert set((served.output / "inputs").glob("*")) == kept


def test_files_that_are_not_pictures_are_refused(client: Client, tmp_path: Path, photo: Path, mask: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    small = tmp_path / "small.png"
    Image.open(mask).resize((64, 64)).save(small)
    for image, over, words in ((text, None, "not a picture"), (photo, text, "not a picture"), (photo, small, "64x64")):
        asked = {"image": handle_file(str(image)), "mask": handle_file(str(over)) if over else None}
        with pytest.raises(Exception, match=words):
            client.predict(**asked, prompt=PROMPT, checkpoint=DEMO, api_name="/image_to_image")


def test_waiting_programs_hold_no_threads(served: Served) -> None:
    """Gradio has 40 threads for all responses. The page must still respond while more programs than that wait."""
    api, queue, release = Api(served.handlers), served.handlers.queue, threading.Event()

    async def ask() -> list[Any]:
        before = threading.active_count()
        waiting = [asyncio.create_task(api.text_to_image(**SMALL)) for _ in range(45)]
        while len(queue.unfinished()) < 46:
            await asyncio.sleep(0.05)
        assert threading.active_count() - before < 40
        for queued in queue.unfinished():
            assert api.cancel(queued.id)
        release.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    queue.submit(HoldTheQueue(until=release))
    assert all("Cancelled" in str(error) for error in run_apart(ask()))
    assert api.cancel("no such") is False


def test_defaults_can_be_sent_back(client: Client) -> None:
    fields = client.predict(api_name="/defaults")
    assert json.loads(json.dumps(fields)) == fields
    given = {name: value for name, value in fields.items() if name not in SMALL}
    assert client.predict(**SMALL, other=given, api_name="/text_to_image")["seed"] == 3


def test_a_foreign_picture_does_not_bring_files_of_this_computer(served: Served, photo: Path, tmp_path: Path) -> None:
    """The text of a dropped PNG may claim any path as its initial picture."""
    info = PngInfo()
    init = json.dumps(json.dumps({"image": str(photo), "mask": str(photo)}))
    info.add_text("parameters", f"x\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64, Init image: {init}")
    Image.new("RGB", (64, 64)).save(tmp_path / "theirs.png", pnginfo=info)
    update = Recall(served.handlers).restore(str(tmp_path / "theirs.png"))
    assert update["mode"] == "image" and update["editor"] is None
    assert "drop it in again" in update["restore_message"]
