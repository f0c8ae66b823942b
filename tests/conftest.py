"""Fixtures shared by all tests: thread count, GPU skipping, model folders, the demo checkpoint."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# Set before torch is imported: pytest-xdist's workers share the cores, and one thread keeps sums in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a reference that tries to download must fail at once

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked gpu, and shows the reason, on machines without an NVIDIA GPU."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def pytest_collection_finish() -> None:
    """Leaves what the tests import out of garbage collections: a session that ends collects, and each took 0.3 s."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries report what is left at the end of a process


@pytest.fixture(scope="session")
def kept_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for all tests of this run, including those of other workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept graphs"


@pytest.fixture(autouse=True)
def cache_of_tests(
    request: pytest.FixtureRequest,
    kept_graphs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hides the user's own cache from the tests. Tests share a cache, because each trace takes seconds. Tests marked
    `own_cache`, which are about traces or about the cache, begin with an empty one."""
    own = request.node.get_closest_marker("own_cache") is not None
    monkeypatch.setenv("LIGHTDIFFUSION_CACHE", str(tmp_path_factory.mktemp("cache") if own else kept_graphs))


@pytest.fixture
def project_root() -> Path:
    return ROOT


@pytest.fixture
def model_root(tmp_path: Path) -> Path:
    """A project folder with empty folders models/<kind>, for ModelFolders(model_root)."""
    from modules.core.paths import KINDS

    for kind in KINDS:
        (tmp_path / "models" / kind).mkdir(parents=True)
    return tmp_path


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    """The small checkpoint that comes with the project."""
    path = ROOT / "models" / "checkpoints" / "demo.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not in this checkout")
    return path
