"""Reads benchmarks/results/ and writes tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from benchmarks.common import RESULTS

WIDTH = 120  # characters of a line of prose

Result = dict[str, Any]


def read_results() -> list[Result]:
    """Returns the newest result of each benchmark, for GPUs and for CPUs; older results come from older code."""
    results = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.rglob("*.json")))
    newest: dict[tuple[str, bool], Result] = {}
    for result in sorted((r for r in results if "benchmark" in r and "rows" in r), key=lambda r: r["machine"]["date"]):
        newest[result["benchmark"], on_gpu(result)] = result
    return sorted(newest.values(), key=lambda result: result["benchmark"])


def on_gpu(result: Result) -> bool:
    return result["machine"].get("gpu") is not None


def rows_by_label(result: Result) -> dict[str, dict[str, Any]]:
    return {row["label"]: row for row in result["rows"]}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def place(result: Result) -> list[str]:
    """Describes the machine and versions of a result, in lines of at most 120 characters."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    commit = machine["commit"] or "unknown"
    return wrap(f"{device}, Python {machine['python']}, {versions}; commit {commit}, {machine['date'][:10]}.", WIDTH)
