"""Three hundred pictures in one process: memory use and counts of files, threads and temporary files stay constant."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.generation.text_to_image import generate
from tests.tiny_project import project, session_at

GENERATIONS = 300
WARM = 60  # caches and pools have reached their sizes by then
MOST_GROWTH = 48 * 2**20  # bytes; leaking one picture and its latents per request would exceed this

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc"),
]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    session, output = session_at(project(tmp_path / "root")), OutputFolder(tmp_path / "out")
    before: tuple[int, int, int] = (0, 0, 0)
    for number in range(GENERATIONS):
        lora = "<lora:ink:0.5>" if number % 3 == 0 else ""
        options = GenerationOptions(prompt=f"a cat {number} {lora}", width=64, height=64, steps=1, seed=number)
        for picture in generate(options, session):
            output.save(picture)
        if number == WARM:
            before = (resident(), open_files(), threading.active_count())
    grown = resident() - before[0]
    assert grown < MOST_GROWTH, f"{grown / 2**20:.0f} MiB in {GENERATIONS - WARM} generations"
    assert open_files() <= before[1] and threading.active_count() <= before[2]
    assert os.listdir(temporary) == []
    assert len(list(output.folder.rglob("*.png"))) == GENERATIONS
    assert not [path for path in output.folder.rglob(".*") if path.is_file()]
