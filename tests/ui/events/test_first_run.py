"""With only the demo model present: the hint, and a download that happens only on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from modules.catalog.starter import STARTER
from modules.core.download import CHUNK
from tests.hub import Remote, serving
from tests.tiny import save_checkpoint
from tests.ui.conftest import DEMO, Form, Served, running_app, wait_until_ready

NAME = STARTER.name


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    path = tmp_path_factory.mktemp("remote") / NAME
    save_checkpoint(path)
    with serving(path.read_bytes()) as remote:
        yield remote


@pytest.fixture
def demo_only(tmp_path: Path, demo_checkpoint: Path, remote: Remote) -> Iterator[Served]:
    remote.requests.clear()
    remote.pause, remote.break_after, remote.status = 0.0, None, 200
    starter = replace(STARTER, url=f"{remote.url}/resolve")
    with running_app(tmp_path, {f"checkpoints/{DEMO}": demo_checkpoint}, starter=starter) as served:
        yield served


@pytest.fixture
def help_page(context: Any, demo_only: Served) -> Any:
    page = context.new_page()
    page.goto(demo_only.url)
    wait_until_ready(page)
    expect(page.locator("#ld-first-hint")).to_be_visible()
    page.get_by_role("tab", name="Help").click()
    return page


def files(served: Served) -> list[str]:
    return sorted(path.name for path in served.handlers.folders.folders("checkpoints")[0].iterdir())


def test_the_download_from_question_and_lost_connections_to_picture(
    help_page: Any, demo_only: Served, remote: Remote
) -> None:
    page, form = help_page, Form(help_page)
    assert remote.requests == [], "opening the page asks nobody anything"
    expect(page.locator("#ld-starter-accept")).to_be_hidden()
    remote.status = 503
    page.locator("#ld-starter-ask").click()
    page.locator("#ld-starter-state .ld-error", has_text="answered 503").wait_for()
    expect(page.locator("#ld-starter-accept")).to_be_hidden()
    remote.status = 200
    remote.requests.clear()
    page.locator("#ld-starter-ask").click()
    offer = page.locator("#ld-starter-offer")
    for words in (remote.sha256, f"{len(remote.data)} bytes", STARTER.licence, NAME, remote.url):
        expect(offer).to_contain_text(words)
    assert [command for command, _, _ in remote.requests] == ["HEAD"], "nothing is fetched before consent"
    assert files(demo_only) == [DEMO]
    remote.break_after = 1000
    page.locator("#ld-starter-accept").click()
    page.locator("#ld-starter-state .ld-error", has_text="start it again").wait_for()
    expect(page.locator("#ld-starter-accept")).to_be_visible()
    assert demo_only.handlers.folders.list("checkpoints") == [DEMO]
    remote.break_after = None
    page.locator("#ld-starter-accept").click()
    page.locator("#ld-starter-state .ld-note", has_text="its SHA-256 is correct").wait_for()
    assert files(demo_only) == [DEMO, NAME]
    form.holds("Checkpoint", NAME)
    expect(page.locator("#ld-first-hint")).to_be_hidden()
    form.prompt("x", steps=1)
    form.fill("Width", 64)
    form.fill("Height", 64)
    form.generate()
    form.wait_for("Done")
    page.reload()
    wait_until_ready(page)
    page.get_by_role("tab", name="Help").click()
    expect(page.locator("#ld-first-run")).to_be_hidden()


@pytest.mark.slow
def test_stopped_reloaded_and_gone_on(help_page: Any, demo_only: Served, remote: Remote) -> None:
    page, remote.pause = help_page, 0.5
    page.locator("#ld-starter-ask").click()
    page.locator("#ld-starter-accept").click()
    page.locator("#ld-starter-state [role=progressbar]").wait_for()
    page.reload()
    wait_until_ready(page)
    page.get_by_role("tab", name="Help").click()
    page.locator("#ld-starter-stop").click()
    page.locator("#ld-starter-state .ld-note", has_text="resumes from there").wait_for()
    assert NAME not in files(demo_only)
    (part,) = (
        path for path in demo_only.handlers.folders.folders("checkpoints")[0].iterdir() if path.suffix == ".part"
    )
    assert 0 < part.stat().st_size < CHUNK, "stopped by what has arrived, not at the end of a large piece"
    assert demo_only.handlers.folders.list("checkpoints") == [DEMO]
    remote.pause = 0.0
    page.locator("#ld-starter-accept").click()
    page.locator("#ld-starter-state .ld-note", has_text="its SHA-256 is correct").wait_for()
    assert remote.data == (demo_only.handlers.folders.folders("checkpoints")[0] / NAME).read_bytes()
