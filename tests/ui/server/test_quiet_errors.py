"""What breaks gradio is answered and logged in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.guard.asgi import ask
from ui.server.quiet_errors import OneLine


@pytest.mark.parametrize("begun", [False, True])
def test_what_breaks_gradio_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, begun: bool) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("a\n" * 500)

    status, _, body = ask(broken, tmp_path, wall=OneLine(broken))
    assert (status, body) == (200, b"") if begun else (status == 500 and body.count(b"\n") == 1)
    assert len(caplog.messages) == 1 and len(caplog.messages[0]) < 300 and caplog.messages[0].isprintable()
    assert caplog.records[0].exc_info is None
