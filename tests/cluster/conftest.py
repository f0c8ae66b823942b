"""One small Ray cluster for all tests of this folder, and a pool of two CPU workers with tiny models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modules.cluster.environment import prepare_import
from modules.cluster.messages import WorkerSettings
from modules.core.paths import ModelFolders
from tests import tiny_project

if TYPE_CHECKING:
    from modules.cluster.pool import WorkerPool

prepare_import()
pytest.importorskip("ray", reason="needs ray (requirements-cluster.txt)")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="session")
def settings(models: Path) -> WorkerSettings:
    return WorkerSettings(root=models, device="cpu", threads=int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def address(settings: WorkerSettings) -> Iterator[str]:
    """The address of a cluster with room for three workers: two of the pool, one for a driver that is killed."""
    import ray

    from modules.cluster.connect import local_ray

    with local_ray(settings, workers=3):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def pool(address: str, models: Path, settings: WorkerSettings) -> Iterator[WorkerPool]:
    from modules.cluster.pool import WorkerPool

    pool = WorkerPool(settings, ModelFolders(models), workers=2, gpus=False, same_machine=True)
    yield pool
    pool.close()
