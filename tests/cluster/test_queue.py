"""The page's queue in front of a pool: tasks run side by side, are cancelled, and are saved by this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from modules.cluster.pool import WorkerPool
from modules.cluster.queue import PoolQueue
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.tasks.task import Compare, FreeMemory, MakePictures
from tests.cluster.test_pool import wait_until

SMALL = GenerationOptions(prompt="a cat", width=64, height=64, steps=2, seed=7)


@pytest.fixture
def queue(pool: WorkerPool, tmp_path: Path) -> Iterator[PoolQueue]:
    queue = PoolQueue(nullcontext(pool), OutputFolder(tmp_path / "output"))
    yield queue
    queue.close()


def test_each_task_is_saved_and_knows_its_progress(queue: PoolQueue) -> None:
    wait_until(lambda: queue.status == "2 of 2 workers are ready")
    tasks = [queue.submit(MakePictures(options=replace(SMALL, seed=seed, batch=2))) for seed in range(4)]
    assert all(task.wait(60) for task in tasks) and [task.state for task in tasks] == ["done"] * 4
    assert [task.seed for task in tasks] == [0, 1, 2, 3]
    paths = [path for task in tasks for path in task.pictures]
    assert len(set(paths)) == 8 and all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert all(task.pace is not None and task.pace.share == 1 for task in tasks)


def test_two_run_at_once_and_each_can_be_cancelled(queue: PoolQueue) -> None:
    long = MakePictures(options=replace(SMALL, steps=150, number=20))
    tasks = [queue.submit(long) for _ in range(3)]
    wait_until(lambda: all(task.state == "running" and task.pace for task in tasks[:2]))
    assert tasks[2].state == "waiting" and queue.ahead_of(tasks[2]) == 2
    assert not any(queue.skip(task.id) for task in tasks), "workers cannot leave out a part of a task"
    assert all(queue.cancel(task.id) for task in reversed(tasks))
    assert all(task.wait(60) for task in tasks) and {task.state for task in tasks} == {"cancelled"}
    assert queue.unfinished() == []


def test_a_failing_task_is_a_sentence(queue: PoolQueue) -> None:
    task = queue.submit(MakePictures(options=replace(SMALL, checkpoint="nix")))
    assert task.wait(60) and task.state == "failed" and task.error.startswith('No checkpoint named "nix"')


def test_models_are_freed_and_come_back(queue: PoolQueue) -> None:
    freed = queue.submit(FreeMemory())
    assert freed.wait(60) and freed.state == "done"
    task = queue.submit(MakePictures(options=SMALL))
    assert task.wait(60) and task.state == "done"


def test_a_comparison_comes_back_whole(queue: PoolQueue) -> None:
    task = queue.submit(Compare(options=replace(SMALL, stable_fast="graph")))
    assert task.wait(120) and task.state == "done", task.error
    assert len(task.pictures) == 2 and task.comparison is not None and task.comparison.psnr > 40


def test_it_leaves_the_import_of_ray_to_what_prepares_it() -> None:
    program = "import sys, modules.cluster.queue; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
