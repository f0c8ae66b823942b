"""`./run.sh` as for a user: the server starts, answers the page and the documented client, and stops on Ctrl-C."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pexpect
import pytest
from PIL import Image

from tests.docs.fences import Fence, to_run

PATIENCE = 240  # seconds; only needed on a busy machine
AS_WRITTEN = "http://127.0.0.1:7860"  # a user's page may run there, so the test uses another port
SNIPPETS = [fence for fence in to_run("python") if "gradio_client" in fence.text]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(clone: Path) -> Iterator[Any]:
    terminal = pexpect.spawn("./run.sh", ["--port", str(free_port())], cwd=str(clone), timeout=PATIENCE)
    yield terminal
    terminal.close(force=True)


@pytest.mark.parametrize("fence", SNIPPETS, ids=lambda fence: fence.place)
def test_started_asked_and_stopped(server: Any, fence: Fence, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.expect(r"LightDiffusion-Next is at (http://\S+) \(Ctrl-C stops it\)\.")
    url = server.match[1].decode().rstrip("/")
    with urllib.request.urlopen(url, timeout=PATIENCE) as page:
        assert page.status == 200 and b"LightDiffusion" in page.read()
    monkeypatch.chdir(clone)
    assert AS_WRITTEN in fence.text
    names: dict[str, Any] = {}
    exec(compile(fence.text.replace(AS_WRITTEN, url), fence.place, "exec"), names)
    with Image.open(names["answer"]["images"][0]) as picture:
        made, given = (np.asarray(one.convert("RGB")) for one in (picture, Image.open("photo.png")))
    assert made.shape == given.shape and np.array_equal(made[:, :32], given[:, :32]), "the mask repaints the right half"
    server.sendintr()
    server.expect(pexpect.EOF)
    server.close()
    shown = server.before.decode()
    assert server.exitstatus == 0 and shown.replace("^C", "").split() == ["Stopped."], shown
