"""Which uploads are allowed, and who may log in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import expect

from tests.ui.conftest import CANNY, DEMO, PROMPT, Form, Served, running_app, wait_until_ready

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def unwanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Makes unusable files; keys are the page's messages about them."""
    folder = tmp_path_factory.mktemp("unwanted")
    pixels, heavy, text = (folder / name for name in ("too many.png", "heavy.png", "<img src=x onerror=throw_1>.png"))
    Image.new("RGB", (8200, 8000), (200, 30, 40)).save(pixels)
    Image.new("RGB", (64, 64)).save(heavy)
    with heavy.open("ab") as file:
        file.write(os.urandom(65 * MEGABYTE))
    text.write_text("hello")
    return {"8200x8000": pixels, "at most 64 MB": heavy, "not a picture": text}


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def choose(page: Any, where: str, file: Path) -> None:
    page.locator(f"{where} input[type=file]").first.set_input_files(file)


@pytest.mark.parametrize("where", ["#ld-editor", "#ld-control-1", "#ld-restore"])
def test_pictures_beyond_the_limits_say_so_above_their_field(
    page: Any, form: Form, unwanted: dict[str, Path], where: str
) -> None:
    form.prompt("a blue square")
    if where == "#ld-editor":
        page.get_by_role("tab", name="Image to image").click()
        page.locator("#ld-editor canvas").first.wait_for()
    elif where == "#ld-control-1":
        form.unfold("ControlNet")
    else:
        form.unfold("Restore settings from a picture")
    message = page.locator(".ld-upload-message")
    for words, file in unwanted.items():
        choose(page, where, file)
        expect(message).to_contain_text(words)
    expect(message).to_contain_text("<img src=x onerror=throw_1>.png")
    expect(message).to_be_in_viewport()
    below = message.bounding_box()["y"] + message.bounding_box()["height"]
    assert 0 <= page.locator(where).bounding_box()["y"] - below < 80
    form.holds("Prompt", "a blue square")


def test_the_server_does_not_rely_on_the_page(served: Served, unwanted: dict[str, Path]) -> None:
    client = Client(served.url, verbose=False)
    control = {"control_1": CANNY, "control_1_image": handle_file(str(unwanted["8200x8000"]))}
    asked = {"prompt": PROMPT, "checkpoint": DEMO}
    with pytest.raises(Exception, match="8200x8000; at most 64 megapixels"):
        client.predict(**asked, other=control, api_name="/text_to_image")
    with pytest.raises(Exception, match="8200x8000; at most 64 megapixels"):
        client.predict(**asked, image=handle_file(str(unwanted["8200x8000"])), api_name="/image_to_image")
    with unwanted["at most 64 MB"].open("rb") as file:
        answer = httpx.post(f"{served.url}gradio_api/upload", files={"files": file}, timeout=60)
    assert answer.status_code == 413


def test_a_wrong_file_ending_is_reported_in_every_field(page: Any, form: Form, served: Served, tmp_path: Path) -> None:
    """Checks that files that a browser cannot show are refused by the form, and by the server for programs."""
    drawing = tmp_path / "drawing.png"
    drawing.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    page.get_by_role("tab", name="Image to image").click()
    page.locator("#ld-editor canvas").first.wait_for()
    choose(page, "#ld-editor", drawing)
    expect(page.locator(".ld-upload-message")).to_contain_text("drawing.png is not a picture file")
    asked = {"image": handle_file(str(drawing)), "prompt": PROMPT, "checkpoint": DEMO}
    with pytest.raises(Exception, match="is not a picture file that can be read"):
        Client(served.url, verbose=False).predict(**asked, api_name="/image_to_image")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, demo_checkpoint: Path) -> Iterator[Served]:
    folder, files = tmp_path_factory.mktemp("guarded"), {f"checkpoints/{DEMO}": demo_checkpoint}
    with running_app(folder, files, auth="me:it's secret", listen="127.0.0.1") as served:
        (served.output / "2020-01-01").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(served.output / "2020-01-01" / "00001-1.png")
        yield served


def test_the_login_page(context: Any, guarded: Served) -> None:
    page = context.new_page()
    page.goto(guarded.url)
    page.get_by_label("username").fill("me")
    page.get_by_label("password").fill("wrong")
    page.get_by_role("button", name="Login").click()
    page.get_by_text("Incorrect Credentials").wait_for()
    assert page.locator("#ld-generate").count() == 0
    page.get_by_label("username").fill("me")
    page.get_by_label("password").fill("it's secret")
    page.get_by_role("button", name="Login").click()
    wait_until_ready(page)
    form = Form(page)
    form.prompt(steps=2)
    form.fill("Width", 64)
    form.fill("Height", 64)
    form.generate()
    form.wait_for("Done")
    expect(page.locator("#ld-gallery img").first).to_have_attribute("src", re.compile("gradio_api/file="))


def test_without_the_login_nothing_is_told(guarded: Served) -> None:
    picture = guarded.output / "2020-01-01" / "00001-1.png"
    for path in ("config", "gradio_api/info", f"gradio_api/file={picture}", "gradio_api/queue/data?session_hash=x"):
        assert httpx.get(guarded.url + path).status_code == 401, path
    for path in ("gradio_api/upload", "gradio_api/run/models", "gradio_api/call/text_to_image"):
        assert httpx.post(guarded.url + path, json={"data": []}).status_code in (401, 422), path
    with pytest.raises(Exception, match="(?i)auth|login|credential"):
        Client(guarded.url, verbose=False)
    client = Client(guarded.url, auth=("me", "it's secret"), verbose=False)
    assert client.predict(api_name="/models") == [DEMO]
