"""Fixtures shared by all tests: thread count, GPU skipping, model folders, the demo checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported: workers of pytest-xdist share the cores, and one thread keeps sums in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # an oracle that wants to download is a mistake, not a wait

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


@pytest.fixture(scope="session")
def kept_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for all tests of this run, those of other workers too."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept graphs"


@pytest.fixture(autouse=True)
def cache_of_tests(
    request: pytest.FixtureRequest,
    kept_graphs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the person at this computer left on disk helps no test. What other tests left saves a trace, which takes
    seconds; tests marked `own_cache`, which are about traces or about the cache, begin with an empty one."""
    own = request.node.get_closest_marker("own_cache") is not None
    monkeypatch.setenv("LIGHTDIFFUSION_CACHE", str(tmp_path_factory.mktemp("cache") if own else kept_graphs))


@pytest.fixture
def project_root() -> Path:
    return ROOT


@pytest.fixture
def model_root(tmp_path: Path) -> Path:
    """An empty project folder with models/<kind> in it, for ModelFolders(model_root)."""
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
