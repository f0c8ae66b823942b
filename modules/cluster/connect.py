"""Starts Ray on this machine, or connects to a cluster that runs already, and opens a pool of workers there.

Call `prepare_import` (modules/cluster/environment.py) before you import this.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from modules.cluster.messages import WorkerSettings
from modules.cluster.pool import WorkerPool
from modules.core.errors import DeviceError, OptionsError, quoted, shortened
from modules.core.paths import ModelFolders

LOCAL, AUTO = "local", "auto"
ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")
PICTURE_STORE = 128 * 2**20  # bytes for pictures on their way
MOST_CPU_WORKERS = 2  # by default; more would share the same cores
PORT_SECONDS, PROBE_SECONDS = 5, 20  # for an answer from the port, and from Ray
REMEDY = "start one with `ray start --head`, and start this on one of its machines (docs/cluster.md)"
PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error')"


@contextmanager
def open_pool(
    place: str, workers: int | None, settings: WorkerSettings, folders: ModelFolders
) -> Generator[WorkerPool]:
    """Opens a pool for the block: on this machine ("local"), or in the running cluster ("auto" or HOST:PORT).

    There is one worker for each GPU, unless `workers` asks for fewer, or for more in a cluster that grows. Without a
    GPU the workers share this machine's cores. Raises OptionsError if nothing answers, or for too many workers.
    """
    with local_ray(settings, workers) if place == LOCAL else running_ray(place):
        count, gpus = chosen_workers(workers, settings.device, local=place == LOCAL)
        if not settings.threads:
            settings = replace(settings, threads=max(1, core_count() // count) if place == LOCAL else 1)
        pool = WorkerPool(settings, folders, workers=count, gpus=gpus, same_machine=place == LOCAL)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def local_ray(settings: WorkerSettings, workers: int | None) -> Generator[None]:
    """Runs Ray on this machine for the block; its files are gone afterwards."""
    folder = tempfile.mkdtemp(prefix="ld-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)  # sockets need it short
    try:
        initialise(
            "local",
            num_cpus=workers or MOST_CPU_WORKERS,
            num_gpus=0 if settings.device == "cpu" else None,
            include_dashboard=False,
            object_store_memory=PICTURE_STORE,
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_ray(address: str) -> Generator[None]:
    """Connects to a running cluster for the block."""
    check_answers(address)
    initialise(address)
    try:
        yield
    finally:
        ray.shutdown()


def initialise(address: str, **settings: Any) -> None:
    """Starts or finds Ray.

    It sends no code: workers import this program from the driver's folders, that of pipeline.py and the current one.
    Raises DeviceError if Ray does not start.
    """
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (RuntimeError, OSError, RayError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise DeviceError(f"--cluster {address}: Ray does not start ({shortened(reason)}); try again.") from error


def check_answers(address: str) -> None:
    """Raises OptionsError unless a cluster answers. Ray itself would try for minutes, and end the process."""
    if address != AUTO:
        check_port(address)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise OptionsError(f"--cluster {quoted(address)}: no Ray cluster answers there; {REMEDY}.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        reason = last.partition(": ")[2].partition(". ")[0].rstrip(".")
        raise OptionsError(f"--cluster {quoted(address)}: no Ray cluster can be used ({reason}); {REMEDY}.")


def check_port(address: str) -> None:
    """Raises OptionsError unless something listens at HOST:PORT."""
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise OptionsError(f"--cluster {quoted(address)}: write local, auto, or the HOST:PORT of a Ray cluster.")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), PORT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionsError(f"--cluster {quoted(address)}: nothing answers there ({reason}); {REMEDY}.") from error


def chosen_workers(asked: int | None, device: str | None, *, local: bool) -> tuple[int, bool]:
    """Returns the number of workers, and whether each needs a GPU.

    A running cluster may grow, so `--device cuda` with a number may ask for more GPUs than it has now. Raises
    OptionsError if this machine has fewer, DeviceError if it has none.
    """
    found = int(ray.cluster_resources().get("GPU", 0))
    if device == "cpu" or (device is None and not found):
        return asked or min(MOST_CPU_WORKERS, core_count()), False
    if local and not found:
        raise DeviceError("--device cuda: Ray finds no NVIDIA GPU here; leave --device out to use CPUs.")
    if asked is None and not found:
        raise OptionsError("--device cuda: the cluster has no GPU yet; give --workers N, and it starts as many.")
    if local and asked is not None and asked > found:
        raise OptionsError(
            f"--workers {asked} needs a GPU for each, but this machine has {found}: give a lower number, or --device "
            "cpu."
        )
    return asked or found, True


def core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
