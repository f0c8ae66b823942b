"""Runs the documentation's Python snippets unchanged, except those that talk to a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core import paths
from tests.docs.fences import Fence, to_run
from tests.docs.stand_ins import WITHOUT_GPU, replaced

TO_A_SERVER = ("import webuiapi", "import openai", "gradio_client")  # test_api.py and test_server.py
SNIPPETS = [fence for fence in to_run("python") if not any(word in fence.text for word in TO_A_SERVER)]


@pytest.mark.parametrize("fence", SNIPPETS, ids=lambda fence: fence.place)
def test_a_snippet_runs(fence: Fence, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PROJECT_ROOT", clone)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(replaced(fence.text, WITHOUT_GPU), fence.place, "exec"), names)
    if "options" in names:
        assert Path("circle.png").stat().st_size > 0
    if "fast" in names:
        assert names["noise"].shape == names["x"].shape  # type: ignore[attr-defined]
        assert "fused" in names["fast"].report.status_line()  # type: ignore[attr-defined]
