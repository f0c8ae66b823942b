"""A fresh clone of the project, set up, and with the files used in the documentation's examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.fences import ROOT, to_run
from tests.docs.stand_ins import add_files

OF_A_CLONE = ("README.md", "*.sh", "*.py", "requirements*.txt", "api", "cli", "modules", "tools", "ui")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for output, settings and Python's caches, in which `./pipeline.sh` works as documented."""
    folder = tmp_path_factory.mktemp("clones") / "LightDiffusion-Next"
    folder.mkdir()
    for pattern in OF_A_CLONE:
        for source in ROOT.glob(pattern):
            if source.is_dir():
                shutil.copytree(source, folder / source.name)
            else:
                shutil.copy(source, folder)
    for source in (ROOT / "models").glob("*/demo*.safetensors"):
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    add_files(folder)
    for fence in to_run("text"):
        if fence.file:
            (folder / fence.file).write_text(fence.text, encoding="utf-8")
    return folder
