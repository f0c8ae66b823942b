"""A project of tiny models for the command line, and a way to run it as users do: with progress bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline
from modules.core import paths
from modules.gallery import output
from tests import tiny, tiny_project

Run = Callable[..., tuple[int, list[Path], str]]
SIZE = ("64", "64")
QUICK = ("--steps", "2", "--device", "cpu")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("command line"))


@pytest.fixture
def root(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which output/ receives the pictures; models are shared by all tests."""
    monkeypatch.setattr(paths, "PROJECT_ROOT", models)
    monkeypatch.setattr(output, "PROJECT_ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; returns exit code, paths on standard output, and standard error."""

    def call(*arguments: str) -> tuple[int, list[Path], str]:
        code = pipeline.main(list(arguments))
        captured = capsys.readouterr()
        return code, [Path(line) for line in captured.out.splitlines()], captured.err

    return call


@pytest.fixture
def project(model_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one tiny checkpoint, not shared: the test may change every file in it."""
    tiny.save_checkpoint(model_root / "models" / "checkpoints" / "tiny.safetensors")
    monkeypatch.setattr(paths, "PROJECT_ROOT", model_root)
    monkeypatch.setattr(output, "PROJECT_ROOT", model_root)
    return model_root
