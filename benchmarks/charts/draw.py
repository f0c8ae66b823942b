"""Writes docs/performance.md and its plot from benchmarks/results/*.json, so that no number there is typed by hand.

python -m benchmarks.charts.draw
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.charts.plot import plot
from benchmarks.common import RESULTS, ROOT

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "performance.svg"
COLUMNS = {  # key of a row -> heading, and how it is written
    "ms": ("ms", "{:.2f}"),
    "fastest_ms": ("fastest", "{:.2f}"),
    "host_ms": ("host ms", "{:.2f}"),
    "first_call_seconds": ("first call s", "{:.1f}"),
    "first_picture_seconds": ("first picture s", "{:.1f}"),
    "new_resolution_seconds": ("new size s", "{:.1f}"),
    "lora_switch_seconds": ("LoRA switch s", "{:.3f}"),
    "median": ("s", "{:.3f}"),
    "first_ms": ("first ms", "{:.1f}"),
    "recaptures": ("recaptures", "{}"),
    "retraces": ("traces", "{}"),
    "break_even_images": ("pays from picture", "{}"),
    "compile_peak_mib": ("peak while compiling, MiB", "{:.0f}"),
    "peak_mib": ("peak MiB", "{:.0f}"),
    "reserved_mib": ("held with graphs, MiB", "{:.0f}"),
    "relative_error": ("error to fp32", "{:.1e}"),
    "load_s": ("load s", "{:.2f}"),
    "use_s": ("load and first use s", "{:.2f}"),
    "peak_over_file": ("peak / file size", "{:.2f}"),
    "pictures": ("pictures", "{}"),
    "score": ("judgements that hold", "{:.3f}"),
    "psnr": ("PSNR to eager fp32, dB", "{:.1f}"),
    "error": ("failed", "{:.60}"),
}
WANTED = {
    "unet-sd15-512-b2-float16": "SD1.5 UNet step, 512², CFG batch 2",
    "unet-sd15-512-b8-float16": "SD1.5 UNet step, 512², batch 8",
    "unet-sd15-1024-b2-float16": "SD1.5 UNet step, 1024², CFG batch 2",
    "unet-sd21-768-b2-float16": "SD2.1 UNet step, 768², CFG batch 2",
    "vae-sd15-512-b1": "VAE decoding, 512²",
    "controlnet-sd15-512-b2": "SD1.5 UNet step with a ControlNet, 512², CFG batch 2",
    "generate-sd15-512": "SD1.5 picture, 512², 20 steps Euler",
    "lora-switch-sd15-512-rank32": "LoRA switch, SD1.5, rank 32 on all attention weights",
    "memory-sd15-512-b2": "Memory of each way alone, SD1.5 UNet, 512², CFG batch 2",
    "compile-sd15-512-b2": "First calls of the SD1.5 UNet with empty (cold) and filled (warm) caches, new resolution",
    "quality-demo": "Quality: the demo model's pictures, judged (see benchmarks/bench_quality.py)",
}
STEP_OPPONENTS = ("diffusers", "diffusers-channels-last", "diffusers-regional", "diffusers-max-autotune")
OPPONENTS = {
    **{name: STEP_OPPONENTS for name in WANTED if name.startswith("unet")},
    "vae-sd15-512-b1": ("diffusers", "diffusers-channels-last", "diffusers-max-autotune"),
    "controlnet-sd15-512-b2": ("diffusers", "diffusers-channels-last", "diffusers-max-autotune"),
    "generate-sd15-512": ("diffusers", "diffusers-regional", "diffusers-max-autotune"),
}
# Floors of ../shared/performance.md (fused kernels, with the exponentials' bound), for 790 TFLOP/s and 4.3 TB/s.
FLOORS_MS = {
    "unet-sd15-512-b2-float16": 2.41,
    "unet-sd15-512-b8-float16": 9.37,
    "unet-sd15-1024-b2-float16": 14.0,
    "unet-sd21-768-b2-float16": 5.97,
    "vae-sd15-512-b1": 3.74,
}
NOTE = (
    "Peaks in this table grow from row to row, since all its networks lie in the same GPU memory; what each needs alone"
    " has a table of its own."
)


def read_results() -> list[dict[str, Any]]:
    """The newest of each benchmark, for GPUs and for CPUs: an older one is of another program."""
    results = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json")))
    newest: dict[tuple[str, bool], dict[str, Any]] = {}
    for result in sorted((r for r in results if "benchmark" in r and "rows" in r), key=lambda r: r["machine"]["date"]):
        newest[result["benchmark"], result["machine"].get("gpu") is None] = result
    return sorted(newest.values(), key=lambda result: result["benchmark"])


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def place(result: dict[str, Any]) -> str:
    """Where and with what it was measured."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    commit = machine["commit"] or "unknown"
    return f"{device}, Python {machine['python']}, {versions}; commit {commit}, {machine['date'][:10]}."


def measured(result: dict[str, Any]) -> list[str]:
    rows = result["rows"]
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    base = next((row["ms"] for row in rows if row.get("label") == "diffusers" and "ms" in row), None)
    headings = ["", *(COLUMNS[key][0] for key in keys)] + ["× diffusers eager"] * (base is not None)
    body: list[list[str]] = []
    for row in rows:
        label = row.get("label") or f"{row['loader']}, {row['dtype']}"
        cells = [COLUMNS[key][1].format(row[key]) if row.get(key) is not None else "" for key in keys]
        body.append([label, *cells] + ([f"{base / row['ms']:.2f}" if "ms" in row else ""] if base else []))
    note = ["", NOTE] if "first_call_seconds" in keys and "peak_mib" in keys else []
    floor = FLOORS_MS.get(result["benchmark"])
    best = [row["ms"] for row in rows if row.get("label") == "full" and "ms" in row]
    if floor and best:
        note += ["", f"The floor is {floor} ms: `full` reaches {floor / best[0]:.0%} of it."]
    return [
        f"## {WANTED.get(result['benchmark'], result['benchmark'])}",
        "",
        place(result),
        "",
        *table(headings, body),
        *note,
    ]


def profiled(result: dict[str, Any]) -> list[str]:
    rows, total = result["rows"], result["total_us"]
    count = sum(row["count"] for row in rows)
    shares = [
        (f"`{row['label'][:70]}`", f"{row['count']:g}", f"{row['us']:.0f}", f"{row['us'] / total:.0%}")
        for row in rows[:15]
    ]
    return [
        f"## Where the time of one step goes ({result['benchmark']})", "", place(result), "",
        f"{count:.0f} kernels, {total / 1000:.2f} ms of GPU time; the fifteen largest:", "",
        *table(["kernel", "calls", "µs", "share"], shares),
    ]  # fmt: skip


def page(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Performance",
        "",
        "Written by `python -m benchmarks.charts.draw` from `benchmarks/results/*.json`: random weights, real shapes.",
        "Medians of interleaved rounds in one process; GPU time by CUDA events. Where *host ms* is about *ms*, the CPU",
        "is the limit and not the GPU: such rows, and ratios to them, depend on the CPU of that machine.",
        "Only the newest result of each benchmark is shown; the folder has older ones.",
        "",
        f"![Milliseconds of each way, workload by workload]({PLOT.relative_to(PAGE.parent)})",
    ]
    for result in sorted(results, key=lambda result: result["machine"].get("gpu") is None):
        lines += ["", *(profiled(result) if result["benchmark"].startswith("profile") else measured(result))]
    gpu = [result for result in results if result["machine"].get("gpu")]
    timed = [(result["benchmark"], row["label"]) for result in gpu for row in result["rows"] if "ms" in row]
    done = {result["benchmark"] for result in gpu if any("error" not in row for row in result["rows"])}
    wanting = [f"- {title}" for name, title in WANTED.items() if name not in done]
    failed = {(result["benchmark"], row["label"]) for result in gpu for row in result["rows"] if "error" in row}
    wanting += [
        f"- {WANTED[name]}: {', '.join(mode + ' (failed)' * ((name, mode) in failed) for mode in missing)}"
        for name, opponents in OPPONENTS.items()
        if (missing := [mode for mode in opponents if (name, mode) not in timed])
    ]
    if wanting:
        lines += ["", "## Not measured yet on a GPU", "", *wanting]
    return "\n".join(lines) + "\n"


def main() -> None:
    results = read_results()
    PAGE.write_text(page(results), encoding="utf-8")
    plot([result for result in results if result["machine"].get("gpu")], WANTED, FLOORS_MS, PLOT)
    print(f"written: {PAGE.relative_to(ROOT)}, {PLOT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
