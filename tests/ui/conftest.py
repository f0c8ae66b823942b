"""The real app on a free port and a headless Chromium in front of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modules.core.paths import KINDS
from tests.tiny import save_checkpoint

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TINY = "tiny.safetensors"
DEMO = "demo.safetensors"
PROMPT = "a red circle on a blue background"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser start, loading and generating take their time on a busy machine."""
    for item in items:
        if "tests/ui" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(180))


@dataclass(frozen=True, kw_only=True)
class Served:
    """One app for all browser tests of a worker."""

    url: str
    output: Path
    settings: Path
    handlers: Any

    def pictures(self) -> list[Path]:
        return self.handlers.history.paths()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def arguments_for(folder: Path, **others: Any) -> Namespace:
    values = {"port": free_port(), "listen": None, "auth": None, "open": False, "output_dir": folder / "output"}
    values |= {"models_root": folder, "settings": folder / "settings.json", "device": "cpu", "dtype": None}
    return Namespace(**values | others)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, demo_checkpoint: Path) -> Iterator[Served]:
    from ui.app import build_app, launch, make_handlers, stay_offline

    folder = tmp_path_factory.mktemp("app")
    for kind in KINDS:
        (folder / "models" / kind).mkdir(parents=True)
    shutil.copy(demo_checkpoint, folder / "models" / "checkpoints" / DEMO)
    stay_offline()
    arguments = arguments_for(folder)
    handlers = make_handlers(arguments)
    page = build_app(handlers)
    _, url, _ = launch(page, handlers, arguments, prevent_thread_lock=True)
    save_checkpoint(folder / "models" / "checkpoints" / TINY)  # appears while the app runs, as a user's would
    yield Served(url=url, output=folder / "output", settings=arguments.settings, handlers=handlers)
    handlers.queue.close()
    page.close(verbose=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium found: .ci/run installs it")
        pytest.skip("no Chromium found; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def open_page(context: Any, served: Served) -> Iterator[Any]:
    """Opens browser tabs with a fresh form; at the end nothing was asked of the outside and nothing failed in them."""
    strangers: list[str] = []
    errors: list[str] = []
    served.settings.write_text(json.dumps({"checkpoint": DEMO, "width": 128, "height": 128}))

    def note_request(request: Any) -> None:
        if not request.url.startswith((served.url, "data:", "blob:")):
            strangers.append(request.url)

    def open_one() -> Any:
        page = context.new_page()
        page.on("request", note_request)
        page.on("pageerror", lambda error: errors.append(str(error)))
        with page.expect_response(lambda response: "heartbeat" in response.url or "queue/data" in response.url):
            page.goto(served.url)
        page.locator("#ld-generate").wait_for()
        page.wait_for_timeout(1500)  # the form's last values arrive with the load event, which nothing on screen tells
        return page

    yield open_one
    for ticket in served.handlers.queue.unfinished():
        ticket.cancel.cancel()
    assert strangers == []
    assert errors == []


@pytest.fixture
def page(open_page: Any) -> Any:
    return open_page()


class Form:
    """The page as a person uses it."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def fill(self, label: str, value: object) -> None:
        self.page.get_by_label(label, exact=True).first.fill(str(value))

    def prompt(self, text: str = PROMPT, *, steps: int = 3) -> None:
        self.fill("Prompt", text)
        self.fill("Steps", steps)

    def generate(self) -> None:
        self.page.locator("#ld-generate").click()

    def make(self, served: Served) -> Path:
        """Generates, and returns the newest picture once there is one more than before."""
        before = len(served.pictures())
        self.generate()
        for _ in range(600):
            self.page.wait_for_timeout(100)
            if len(served.pictures()) > before and not served.handlers.queue.unfinished():
                self.wait_for("Done")
                return served.pictures()[0]
        raise AssertionError(f"no picture after a minute; {self.page.locator('#ld-message').inner_text()}")

    def wait_for(self, words: str) -> str:
        """Until the line under the progress bar says so."""
        line = self.page.locator("#ld-stage .ld-words", has_text=words)
        line.wait_for()
        return line.inner_text()

    def message(self) -> str:
        box = self.page.locator("#ld-message .ld-message")
        box.wait_for()
        return box.inner_text()


@pytest.fixture
def form(page: Any) -> Form:
    return Form(page)
