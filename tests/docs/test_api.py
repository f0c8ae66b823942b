"""`./run.sh --no-page` as for a user: every command and snippet of docs/api.md is answered, and Ctrl-C stops it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from PIL import Image

from tests.docs.fences import Fence, commands, to_run
from tests.docs.test_server import AS_WRITTEN, PATIENCE, free_port

COMMANDS = [command for command, place in commands().items() if place.startswith("api.md")]
CURL = [command for command in COMMANDS if command.startswith("curl")]
SNIPPETS = [fence for fence in to_run("python") if fence.place.startswith("api.md")]
SAVED = {"import webuiapi": "sunset.png", "import openai": "circle.png"}


@pytest.fixture(scope="module")
def url(clone: Path) -> Iterator[str]:
    assert [command for command in COMMANDS if command not in CURL] == ["./run.sh --no-page"]
    words = ["--no-page", "--port", str(free_port())]
    terminal = pexpect.spawn("./run.sh", words, cwd=str(clone), timeout=PATIENCE)
    terminal.expect(r"LightDiffusion-Next's API is at (http://\S+)/ \(Ctrl-C stops it\)\.")
    yield terminal.match[1].decode()
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    shown = terminal.before.decode()
    assert terminal.exitstatus == 0 and shown.replace("^C", "").split() == ["Stopped."], shown


@pytest.mark.parametrize("command", CURL)
def test_a_command_is_answered(url: str, command: str) -> None:
    assert AS_WRITTEN in command
    done = subprocess.run(
        ["bash", "-c", command.replace(AS_WRITTEN, url)], capture_output=True, timeout=PATIENCE, check=True
    )
    assert len(json.loads(done.stdout)["images"]) == 1


@pytest.mark.parametrize("fence", SNIPPETS, ids=lambda fence: fence.place)
def test_a_snippet_runs(url: str, fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert AS_WRITTEN in fence.text
    exec(compile(fence.text.replace(AS_WRITTEN, url), fence.place, "exec"), names)
    (saved,) = (file for word, file in SAVED.items() if word in fence.text)
    with Image.open(saved) as picture:
        picture.load()
