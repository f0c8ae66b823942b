"""--prompts FILE with --cluster: only the driver writes, a second run goes on, also after a kill of the driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pipeline
from cli.runs import cluster
from modules.cluster.pool import WorkerPool
from modules.core import paths
from modules.core.errors import OutputError
from modules.gallery import output
from modules.gallery.output import OutputFolder
from modules.tasks.prompt_record import RECORD
from tests.conftest import ROOT

TINY = ("--checkpoint", "tiny")  # not the default, which would be the damaged one
PATCHED = """
import sys
from pathlib import Path
from modules.core import paths
paths.PROJECT_ROOT = Path(sys.argv[1])
import pipeline
sys.exit(pipeline.main(sys.argv[2:]))
"""


class Runner:
    """Runs the command line on lines of text."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def arguments(self, lines: list[str], steps: int = 1) -> list[str]:
        (self.folder / "prompts.txt").write_text("\n".join(lines), encoding="utf-8")
        size = ["64", "64", "1", "1", "--steps", str(steps), "--device", "cpu", "--quiet"]
        return ["--prompts", str(self.folder / "prompts.txt"), *size, "--output-dir", str(self.folder / "output")]

    def __call__(self, lines: list[str], *extra: str) -> tuple[int, dict[str, Any], str]:
        """Returns the exit code, the JSON output and standard error."""
        code = pipeline.main([*self.arguments(lines), "--cluster", "local", "--json", *extra])
        captured = self._capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    def pictures(self) -> list[Path]:
        return sorted((self.folder / "output").rglob("*.png"))


@pytest.fixture
def run(
    tmp_path: Path,
    models: Path,
    pool: WorkerPool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Runner:
    """The command line with the pool of all tests, since Ray runs once in a process."""

    @contextmanager
    def opened(*_: object) -> Iterator[WorkerPool]:
        yield pool

    monkeypatch.setattr(cluster, "opened_pool", opened)
    monkeypatch.setattr(paths, "PROJECT_ROOT", models)
    monkeypatch.setattr(output, "PROJECT_ROOT", tmp_path)
    return Runner(tmp_path, capsys)


def statuses(answer: dict[str, Any]) -> list[str]:
    return [line["status"] for line in answer["lines"]]


def test_a_second_run_makes_only_what_is_new(run: Runner) -> None:
    lines = ["a cat", json.dumps({"prompt": "a dog", "seed": 7, "number": 2, "batch": 2}), "a cat"]
    code, first, err = run(lines)
    assert code == 0 and statuses(first) == ["done"] * 3 and err == ""
    assert [len(line["images"]) for line in first["lines"]] == [1, 4, 1]
    assert sorted(image["seed"] for image in first["lines"][1]["images"]) == [7, 8, 9, 10]
    code, again, _ = run(["a bird", *lines])
    assert code == 0 and statuses(again) == ["done", "skipped", "skipped", "skipped"]
    assert len(run.pictures()) == 7


def test_the_pictures_are_those_of_a_run_without_a_cluster(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"prompt": "a cat", "seed": seed, "batch": 2}) for seed in (3, 30)]
    run(lines)
    there = {path.name.partition("-")[2]: path.read_bytes() for path in run.pictures()}
    run.folder = run.folder / "here"
    run.folder.mkdir()
    assert pipeline.main(run.arguments(lines)) == 0
    here = {path.name.partition("-")[2]: path.read_bytes() for path in run.pictures()}
    assert there == here and len(there) == 4


def test_a_line_that_fails_does_not_end_the_others(run: Runner, models: Path) -> None:
    bad = models / "models" / "checkpoints" / "damaged.safetensors"
    bad.write_bytes(b"no model")
    code, answer, err = run(["a cat", json.dumps({"prompt": "a dog", "checkpoint": "damaged"}), "a bird"], *TINY)
    bad.unlink()
    assert code == 3 and statuses(answer) == ["done", "failed", "done"]
    assert "prompts.txt, line 2: " in err and "Traceback" not in err


def test_a_full_disk_ends_the_run_with_its_own_sentence(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> Path:
        raise OutputError("The disk is full.")

    monkeypatch.setattr(OutputFolder, "save", save)
    code, answer, err = run([f"a cat {number}" for number in range(20)])
    assert code == 4 and answer["error"] == "The disk is full." and err.count("error:") == 1


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_was(
    run: Runner, address: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"a cat {number}" for number in range(12)]
    command = [sys.executable, "-c", PATCHED, str(models), *run.arguments(lines, steps=8)]
    command += ["--cluster", address, "--workers", "1"]
    start = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, **start)  # type: ignore[call-overload]
    deadline = time.monotonic() + 120
    while len(run.pictures()) < 3:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = run.pictures()
    assert len(before) < len(lines), "it was killed on the way"
    again = subprocess.run(command, **start, timeout=120, check=False)  # type: ignore[call-overload]
    assert again.returncode == 0, again.stderr
    assert len(run.pictures()) == len(lines) == len(before) + len(again.stdout.split())
    entries = [json.loads(line) for line in (run.folder / "output" / RECORD).read_text().split("\n") if line]
    assert len({entry["request"] for entry in entries}) == len(lines)
