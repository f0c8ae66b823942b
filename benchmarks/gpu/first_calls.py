"""First calls with empty caches, each in a new process, and what they consist of; for bench_untuned --cold."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common import ROOT
from modules.stable_fast.report import Report
from modules.stable_fast.store.cache import CACHE_VARIABLE

MYSELF = (sys.executable, "-m", "benchmarks.gpu.bench_untuned", "--only-first-call")
TINY = ("--tiny", "--device", "cpu", "--sizes", "sd15-128", "--capabilities", "own")

Row = dict[str, Any]


def parts_of(report: Report, first_step_seconds: float) -> Row:
    """What a first step consists of. `compile_seconds` in the same row is the program, with its trace; the rest is
    choices read from disk, a first run and its capture."""
    known = sum(made.compile_seconds for made in report.programs) + report.kernel_seconds + report.probe_seconds
    return {
        "compiled_kernels": report.counters.kernels,
        "kernel_seconds": report.kernel_seconds,
        "probes": report.counters.probes,
        "probe_seconds": report.probe_seconds,
        "rest_seconds": first_step_seconds - known,
    }


def seconds_of_cores(before: os.times_result) -> Row:
    """The cores that there are, and the seconds that they were busy since: with this process, and with those that it
    started, which are assemblers and C compilers."""
    now, affinity = os.times(), getattr(os, "sched_getaffinity", None)
    return {
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "cpu_seconds": now.user + now.system - before.user - before.system,
        "children_cpu_seconds": now.children_user + now.children_system - before.children_user - before.children_system,
    }


def first_calls(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yields a row for each size and capability.

    A tiny network runs before them, so that Python has its compiled sources, as an installed program has.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as sources:
        environment.setdefault("PYTHONPYCACHEPREFIX", sources)
        subprocess.run([*MYSELF, *TINY], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        for size in arguments.sizes.split(","):
            for said in arguments.capabilities.split(","):
                yield first_call_of(size, said, arguments, environment)


def first_call_of(size: str, said: str, arguments: argparse.Namespace, environment: Mapping[str, str]) -> Row:
    """The first call in a new process, with our caches and Triton's empty."""
    given = ["--tables", str(arguments.tables)] if arguments.tables else []
    how = ["--sizes", size, "--capabilities", said, "--device", arguments.device, *["--tiny"] * arguments.tiny]
    with tempfile.TemporaryDirectory() as folder:
        caches = {CACHE_VARIABLE: f"{folder}/ours", "TRITON_CACHE_DIR": f"{folder}/triton"}
        answer = subprocess.run(
            [*MYSELF, *how, *given], cwd=ROOT, env={**environment, **caches}, stdout=subprocess.PIPE, text=True
        )
    if answer.returncode != 0:
        return {"size": size, "error": answer.returncode}
    row: Row = json.loads(answer.stdout.splitlines()[-1])
    return row


def told(row: Row) -> str:
    """One line for people: the first step and its parts."""
    if "error" in row:
        return f"{row['size']}: first call failed with status {row['error']}"
    parts = (
        f"trace {row['trace_seconds']:.1f}",
        f"program {row['compile_seconds'] - row['trace_seconds']:.1f}",
        f"{row['compiled_kernels']} kernels {row['kernel_seconds']:.1f}",
        f"{row['probes']} probes {row['probe_seconds']:.1f}",
        f"run and capture {row['rest_seconds']:.1f}",
    )
    busy = f"{row['cores']} cores busy for {row['cpu_seconds']:.0f} + {row['children_cpu_seconds']:.0f} s"
    return f"{row['size']} {row['label']}: first call {row['first_step_seconds']:.1f} s: {', '.join(parts)}; {busy}"
