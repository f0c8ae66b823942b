"""By which names this computer may be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.guard.hosts import OWN_NAMES, KnownHosts
from tests.api.guard.asgi import Server, ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:7860", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("mine", 200),
        ("mine.example", 400),
        ("localhost.example:7860", 400),
        ("", 400),
    ],
)
def test_other_names_are_refused_with_the_remedy(tmp_path: Path, host: str, status: int) -> None:
    server = Server()
    found, _, told = ask(server, tmp_path, headers={"host": host}, wall=KnownHosts(server, [*OWN_NAMES, "Mine"]))
    assert found == status and server.reached == (status == 200)
    assert status == 200 or b"--allow-host" in told
