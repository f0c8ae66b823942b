"""A session on a tiny random checkpoint, so that whole generations take a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.paths import KINDS, ModelFolders
from modules.generation.session import Session
from tests import tiny


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    for kind in KINDS:
        (root / "models" / kind).mkdir(parents=True)
    tiny.save_checkpoint(root / "models" / "checkpoints" / "tiny.safetensors")
    return root


@pytest.fixture(scope="session")
def session(tiny_root: Path) -> Session:
    return Session(ModelFolders(tiny_root), device="cpu")
