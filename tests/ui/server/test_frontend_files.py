"""The scripts and styles of the page come whole and from memory to this computer, and from gradio to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.guard.asgi import Receive, Scope, Send
from tests.ui.conftest import run_apart
from ui.server.frontend_files import FOR_GOOD, FrontendFiles


async def gradio(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200 if "js" in scope["path"] else 404, "headers": []})
    await send({"type": "http.response.body", "body": b"gradio's"})


@pytest.fixture
def files(tmp_path: Path) -> FrontendFiles:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a-1.js").write_text("let a", encoding="utf-8")
    (tmp_path / "secret.js").write_text("secret", encoding="utf-8")
    return FrontendFiles(gradio, tmp_path / "assets")


def ask(files: FrontendFiles, path: str, *, client: str = "127.0.0.1", method: str = "GET") -> tuple[Any, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "client": (client, 5)}
    run_apart(files(scope, receive, send))  # the browser of other tests has a loop in this thread
    return sent[0], sent[1]["body"]


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_this_computer_gets_the_file_and_keeps_it(files: FrontendFiles, client: str) -> None:
    start, body = ask(files, "/assets/a-1.js", client=client)
    headers = dict(start["headers"])
    assert body == b"let a" and start["status"] == 200
    assert headers[b"content-type"].endswith(b"/javascript") and headers[b"content-length"] == b"5"
    assert headers[FOR_GOOD[0]] == FOR_GOOD[1] and headers[b"x-content-type-options"] == b"nosniff"


def test_another_computer_gets_gradios_answer_and_keeps_it(files: FrontendFiles) -> None:
    start, body = ask(files, "/assets/a-1.js", client="192.0.2.7")
    assert body == b"gradio's" and start["headers"] == [FOR_GOOD]


@pytest.mark.parametrize("path", ["/assets/../secret.js", "/secret.js", "/assets/", "/a-1.js.map", "/assets/b.js"])
def test_other_paths_are_gradios(files: FrontendFiles, path: str) -> None:
    start, body = ask(files, path)
    assert body == b"gradio's" and start["headers"] == []


def test_only_files_can_be_got(files: FrontendFiles) -> None:
    assert ask(files, "/assets/a-1.js", method="POST")[1] == b"gradio's"
