"""The real app on a free port and a headless Chromium in front of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from argparse import Namespace
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from modules.catalog.starter import STARTER, StarterDownload, StarterModel
from modules.core.paths import KINDS
from tests.tiny import save_checkpoint

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TINY = "tiny.safetensors"
DEMO = "demo.safetensors"
INK = "demo_ink.safetensors"
CANNY = "demo_canny.safetensors"
PATIENCE = 120_000  # milliseconds; only needed in full on a busy machine
# In a slow browser, Gradio's mask editor handles a picture or a size before its own canvas is set up. The editor
# redraws afterwards, so nothing is lost, and a page cannot prevent the error.
GRADIOS_OWN_RACE = (
    "Cannot read properties of undefined (reading 'reset_layers')",
    "Cannot read properties of undefined (reading 'dimensions')",
)
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
PROMPT = "a red circle on a blue background"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises the time limit: starting a browser, loading and generating are slow on a busy machine."""
    for item in items:
        if "tests/ui" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(400))


@dataclass(frozen=True, kw_only=True)
class Served:
    """One app, shared by all browser tests of a worker."""

    url: str
    output: Path
    settings: Path
    handlers: Any

    def pictures(self) -> list[Path]:
        return self.handlers.history.paths()


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs `work` in a separate thread, because other tests' browser has an event loop in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def arguments_for(folder: Path, **others: Any) -> Namespace:
    from ui.app import build_parser

    values = {"port": free_port(), "output_dir": folder / "output", "models_root": folder, "device": "cpu"}
    return Namespace(**vars(build_parser().parse_args([])) | values | {"settings": folder / "settings.json"} | others)


@contextmanager
def running_app(
    folder: Path, files: dict[str, Path], *, starter: StarterModel = STARTER, **others: Any
) -> Iterator[Served]:
    """Runs the app with these model files (name under models/ -> source)."""
    from ui.app import build_app, launch, make_handlers, stay_offline

    for kind in KINDS:
        (folder / "models" / kind).mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        shutil.copy(source, folder / "models" / name)
    stay_offline()
    arguments = arguments_for(folder, **others)
    handlers = make_handlers(arguments)
    page = build_app(handlers, StarterDownload(handlers.folders, starter))
    _, url, _ = launch(page, handlers, arguments, prevent_thread_lock=True)
    yield Served(url=url, output=folder / "output", settings=arguments.settings, handlers=handlers)
    handlers.queue.close()
    page.close(verbose=False)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, demo_checkpoint: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("it's app #1 ü 50% & more")
    ours = (f"checkpoints/{DEMO}", f"loras/{INK}", f"controlnet/{CANNY}")
    with running_app(folder, {name: demo_checkpoint.parents[1] / name for name in ours}) as served:
        save_checkpoint(folder / "models" / "checkpoints" / TINY)  # appears while the app runs, like a user's file
        yield served


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium found: .ci/run installs it")
        pytest.skip("no Chromium found; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def profile(browser: Any) -> Any:
    """One profile for all tests: with compiled Gradio scripts, a page loads in two thirds of the time."""
    profile = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    profile.set_default_timeout(PATIENCE)
    return profile


@pytest.fixture
def context(profile: Any) -> Iterator[Any]:
    yield profile
    for page in profile.pages:
        page.close()
    profile.clear_cookies()


@pytest.fixture
def open_page(context: Any, served: Served) -> Iterator[Any]:
    """Opens browser tabs with a fresh form; finally checks that there were no outside requests and no errors."""
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
        page.goto(served.url)
        wait_until_ready(page)
        return page

    yield open_one
    for queued in served.handlers.queue.unfinished():
        queued.cancel.cancel()
    assert strangers == []
    assert [error for error in errors if error not in GRADIOS_OWN_RACE] == []


@pytest.fixture
def page(open_page: Any) -> Any:
    return open_page()


def wait_until_ready(page: Any) -> None:
    """Waits for the mark that the page sets after the load event, which brings the form's last values."""
    page.locator("body[data-ld-ready]").wait_for()


class Form:
    """The page as used by a person."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def fill(self, label: str, value: object) -> None:
        self.field(label).fill(str(value))

    def choose(self, label: str, option: str) -> None:
        self.field(label).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.holds(label, option)

    def unfold(self, name: str) -> None:
        """Opens a closed part of the form. Only then does Gradio build the fields, and a few milliseconds later it sets
        their values again. Nobody types that fast, but on a busy machine a script does."""
        button = self.page.locator("#ld-form").get_by_role("button", name=name).first
        button.click()
        button.locator("xpath=..").locator("label:visible, input:visible, [role=tab]:visible").first.wait_for()
        self.page.evaluate(TWO_FRAMES)

    def show(self, tab: str) -> None:
        """Chooses a tab. In a narrow window, Gradio keeps the last tabs in a menu, and moves a chosen tab out of it."""
        there = self.page.get_by_role("tab", name=tab, exact=True)
        there.or_(self.page.locator("#ld-panels .overflow-dropdown button", has_text=tab)).first.dispatch_event("click")
        expect(there).to_have_attribute("aria-selected", "true")

    def search(self, words: str) -> None:
        """Searches the history; Gradio builds these fields late too (see `unfold`)."""
        self.show("History")
        field = self.page.locator("#ld-search textarea, #ld-search input").first
        field.wait_for()
        self.page.evaluate(TWO_FRAMES)
        field.fill(words)

    def prompt(self, text: str = PROMPT, *, steps: int = 3) -> None:
        self.fill("Prompt", text)
        self.fill("Steps", steps)

    def generate(self) -> None:
        self.page.locator("#ld-generate").click()

    def make(self, served: Served) -> Path:
        """Generates a picture, waits for it and returns its path."""
        before = len(served.pictures())
        task = self.page.locator("#ld-task textarea, #ld-task input")
        last = task.input_value()
        self.generate()
        expect(task).not_to_have_value(last)
        request = served.handlers.queue.find(task.input_value())
        assert request.wait(PATIENCE / 1000)
        self.wait_for("Done")
        assert len(served.pictures()) > before
        return served.pictures()[0]

    def wait_for(self, words: str) -> str:
        """Waits until the line under the progress bar contains these words."""
        line = self.page.locator("#ld-stage .ld-words", has_text=words)
        line.wait_for()
        return line.inner_text()

    def field(self, label: str) -> Any:
        return self.page.get_by_label(label, exact=True).first

    def holds(self, label: str, value: str) -> None:
        """Waits for the value, because values arrive from the server a moment after the event."""
        expect(self.field(label)).to_have_value(value)

    def message(self) -> str:
        box = self.page.locator("#ld-message .ld-message")
        box.wait_for()
        return box.inner_text()


def axe_finds(page: Any) -> list[Any]:
    """Returns axe-core's complaints as (rule, elements), once the page has settled."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_function("document.getAnimations().every(one => one.playState != 'running')")
    results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in results.response["violations"]]


@pytest.fixture
def form(page: Any) -> Form:
    return Form(page)
