"""No test changes the clock of the whole process: servers of other tests run in threads beside it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.source_tree import ROOT

WHOLE_PROCESS = re.compile(r'setattr\((?:\w+\.)*(?:time|asyncio), |setattr\(\s*"[\w.]+\.(?:time|asyncio)\.')


def test_a_test_replaces_time_in_the_module_it_tests_only() -> None:
    """An `asyncio.sleep` that returns at once makes loops of others spin, without end and without mercy for memory."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    files = [file for file in tests if WHOLE_PROCESS.search(file.read_text()) and file != Path(__file__)]
    assert not files, "patch the name in the module: monkeypatch.setattr(module, 'time', SimpleNamespace(...))"
    assert WHOLE_PROCESS.search('monkeypatch.setattr(time, "monotonic", clock)')
