"""Code shared by all benchmarks: timing with warm-up and spread, machine and versions, results as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate", "safetensors", "stable-fast-pruna")


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs; `spread` is (slowest - fastest) / median."""

    median: float
    fastest: float
    slowest: float
    spread: float
    runs: int


def summarise(seconds: list[float]) -> Timing:
    median = statistics.median(seconds)
    return Timing(median, min(seconds), max(seconds), (max(seconds) - min(seconds)) / median, len(seconds))


def measure(function: Callable[[], object], *, warmup: int = 2, repeats: int = 10) -> Timing:
    """Measures the wall time of a call, including the GPU's work."""
    for _ in range(warmup):
        function()
    seconds: list[float] = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        function()
        synchronise()
        seconds.append(time.perf_counter() - start)
    return summarise(seconds)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Returns this process's peak resident size in bytes (getrusage would also count the parent's size at the fork)."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if match is None:
        raise RuntimeError("this system does not report VmHWM; run the benchmark on Linux")
    return int(match[1]) * 1024


def machine() -> dict[str, object]:
    """Describes the machine and versions of a measurement."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        **_revision(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


@cache
def _revision() -> dict[str, object]:
    """Returns the measured commit, or BENCHMARK_COMMIT, which is set if the tree was copied without its history."""
    named = os.environ.get("BENCHMARK_COMMIT")
    if named:
        return {"commit": named}
    changed = _git("status", "--porcelain", "--untracked-files=no").splitlines()
    return {"commit": _git("rev-parse", "--short", "HEAD"), "changed_files": len(changed)}


def machine_slug() -> str:
    """Returns a short machine name for a folder: the GPU, or the CPU and its cores."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_cpu_name()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def keep_result(name: str, rows: Sequence[dict[str, object]], **extra: object) -> tuple[Path, dict[str, object]]:
    """Writes results/<machine>/<name>.json. Called again with more rows, so that a killed run loses none."""
    result = {"benchmark": name, "machine": machine(), **extra, "rows": rows}
    path = RESULTS / machine_slug() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path, result


def write_result(name: str, rows: Sequence[dict[str, object]], **extra: object) -> Path:
    """Writes the result and prints it as the last line, for programs that read benchmarks."""
    path, result = keep_result(name, rows, **extra)
    print(f"written: {path.relative_to(ROOT)}")
    print(json.dumps(result))
    return path


def timing_row(label: str, timing: Timing, **extra: object) -> dict[str, object]:
    return {"label": label, **asdict(timing), **extra}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    match = re.search(r"model name\s*:\s*(.+)", text)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip()
