"""The real app on a free port and a headless Chromium in front of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
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
from tests.ui.tabs import VIEWPORT, Watch, put_back
from tests.ui.tabs import wait_until_ready as wait_until_ready

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TINY = "tiny.safetensors"
DEMO = "demo.safetensors"
INK = "demo_ink.safetensors"
CANNY = "demo_canny.safetensors"
PATIENCE = 120_000  # milliseconds; only needed in full on a busy machine
# What would reach the next test's request. An opened editor also draws without end.
KEPT_PICTURES = "#ld-control-1 img, #ld-control-2 img, #ld-editor canvas"
STILL = "document.getAnimations().every(one => one.playState != 'running')"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
AGAIN = ["TimeoutError", "Locator expected"]
PROMPT = "a red circle on a blue background"
FRESH_FORM = json.dumps({"checkpoint": DEMO, "width": 128, "height": 128})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises the time limit: starting a browser, loading and generating are slow on a busy machine.

    A test that waited in vain for the browser is tried once more, and the summary lists it as RERUN. An error of a
    script is a fault, and is not tried again.
    """
    for item in items:
        if "tests/ui" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(400))
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=AGAIN))


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
    profile = browser.new_context(viewport=VIEWPORT, color_scheme="light")
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
    served.settings.write_text(FRESH_FORM)
    watch = Watch(context, served)
    yield watch.open
    watch.end()


@pytest.fixture(scope="session")
def used_tabs(browser: Any, served: Served) -> Watch:
    """A profile beside `profile`, whose pages stay open."""
    context = browser.new_context(viewport=VIEWPORT, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    return Watch(context, served)


@pytest.fixture
def used_page(request: pytest.FixtureRequest, used_tabs: Watch) -> Iterator[Any]:
    """A page that other tests have used, with the form put back. It saves most tests the loading of a page, which takes
    as much work as ten pictures. The page still shows earlier pictures, and unfolded parts stay unfolded. A file whose
    tests need no fresh page returns this one as its fixture `page`."""
    if not used_tabs.context.pages:
        used_tabs.served.settings.write_text(FRESH_FORM)
        used_tabs.open()
    (page,) = used_tabs.context.pages
    used_tabs.strangers, used_tabs.errors = [], []  # what came late from the test before is not of this one
    failures = request.session.testsfailed
    yield page
    fine = request.session.testsfailed == failures and used_tabs.nothing_noted()
    fine = fine and not page.locator(KEPT_PICTURES).count()
    if not fine:
        page.close()
    used_tabs.end()
    if fine:
        put_back(Form(page))


@pytest.fixture
def page(open_page: Any) -> Any:
    return open_page()


class Form:
    """The page as used by a person."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def fill(self, label: str, value: object) -> None:
        self.field(label).fill(str(value))

    def choose(self, label: str, option: str, *, shown: str = "") -> None:
        """Chooses an option; then the list shows it, or what is `shown` instead."""
        self.field(label).click()
        self.options(label).and_(self.page.get_by_role("option", name=option, exact=True)).click()
        self.holds(label, shown or option)

    def options(self, label: str) -> Any:
        """Returns the lines of this list alone; the list of another field may still be fading away."""
        return self.page.locator(f"#{self.field(label).get_attribute('aria-controls')} [role=option]")

    def unfold(self, name: str) -> None:
        """Opens a closed part of the form. Only then does Gradio build the fields, and a few milliseconds later it sets
        their values again. Nobody types that fast, but on a busy machine a script does. An open part stays open."""
        button = self.page.locator("#ld-form").get_by_role("button", name=name).first
        if "open" not in str(button.get_attribute("class")).split():
            button.click()
        button.locator("xpath=..").locator("label:visible, input:visible, [role=tab]:visible").first.wait_for()
        self.page.evaluate(TWO_FRAMES)

    def show(self, tab: str) -> None:
        there = self.page.get_by_role("tab", name=tab, exact=True)
        there.dispatch_event("click")
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

    def wait_for(self, words: str | re.Pattern[str]) -> str:
        """Waits until the line under the progress bar contains these words."""
        line = self.page.locator("#ld-stage .ld-words", has_text=words)
        line.wait_for()
        return line.inner_text()

    def field(self, label: str) -> Any:
        return self.page.get_by_label(label, exact=True).first

    def holds(self, label: str, value: str) -> None:
        """Waits for the value, because values arrive from the server a moment after the event."""
        expect(self.field(label)).to_have_value(value)

    def message(self, place: str = "message") -> str:
        box = self.page.locator(f"#ld-{place} .ld-message")
        box.wait_for()
        return box.inner_text()


def axe_finds(page: Any) -> list[Any]:
    """Returns axe-core's complaints as (rule, elements), once the page has settled."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_function(STILL)
    results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in results.response["violations"]]


@pytest.fixture
def form(page: Any) -> Form:
    return Form(page)


@pytest.fixture
def used_form(used_page: Any) -> Form:
    return Form(used_page)
