"""The API without the page: gradio is not imported, and Ctrl-C ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from api.server import running
from modules.core.errors import OptionsError
from tests.tiny_project import project
from tests.ui.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import sys
from ui.app import main
code = main(sys.argv[1:])
print("gradio" in sys.modules, "torch" in sys.modules)
sys.exit(code)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends Ctrl-C")
def test_it_serves_without_gradio_and_stops(tmp_path: Path) -> None:
    root = project(tmp_path)
    words = ["--no-page", "--port", str(free_port()), "--models-root", str(root), "--output-dir", str(root / "output")]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    url = re.search(r"http://\S+/", line)
    assert url is not None and "API" in line
    assert httpx.get(f"{url[0]}sdapi/v1/sd-models").json()[0]["model_name"] == "tiny"
    assert httpx.get(url[0]).status_code == 404
    server.send_signal(signal.SIGINT)
    told, errors = server.communicate(timeout=60)
    assert server.returncode == 0 and told.strip() == "False False" and errors == "Stopped.\n"


def test_a_port_in_use_is_a_sentence() -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    port = free_port()
    with running(app, "127.0.0.1", port), pytest.raises(OptionsError, match=f"port {port}"):  # noqa: SIM117
        with running(app, "127.0.0.1", port):
            pass
