"""Draws docs/images/performance.svg: milliseconds of each way, workload by workload, and the GPU's lower limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt  # noqa: E402 - after the backend is chosen

OURS, EAGER, OTHERS = "#c2410c", "#d6a58c", "#9aa5b1"
PER_ROW = 2


def colour(label: str) -> str:
    if label.startswith("full"):  # also "full-tuned"
        return OURS
    return OTHERS if label.startswith("diffusers") else EAGER


def bars(axes: Any, title: str, rows: Sequence[Mapping[str, Any]], floor: float | None) -> None:
    """Draws one workload: a bar for each way, the fastest on top."""
    timed = sorted((row for row in rows if "ms" in row), key=lambda row: row["ms"], reverse=True)
    labels, times = [row["label"] for row in timed], [row["ms"] for row in timed]
    drawn = axes.barh(labels, times, color=[colour(label) for label in labels], height=0.7)
    axes.bar_label(drawn, fmt=lambda ms: f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}", padding=3, fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    if floor is not None:
        axes.axvline(floor, color="#166534", linewidth=1, linestyle="--")
        at = {"xycoords": ("data", "axes fraction"), "fontsize": 7, "color": "#166534"}
        axes.annotate(f" floor {floor:g}", (floor, 0.02), **at)


def plot(
    results: Sequence[Mapping[str, Any]], titles: Mapping[str, str], floors: Mapping[str, float], to: Path
) -> None:
    """Plots milliseconds by CUDA events (wall time for a whole picture) if `full` was timed alongside another way."""
    shown: list[Mapping[str, Any]] = []
    for result in results:
        timed = {row["label"] for row in result["rows"] if "ms" in row}
        if result["benchmark"] in titles and {"full"} < timed:
            shown.append(result)
    if not shown:
        return
    height = -(-len(shown) // PER_ROW)
    mpl.rcParams |= {"svg.hashsalt": "performance", "svg.fonttype": "none"}  # the same file for the same numbers
    figure, grid = plt.subplots(height, PER_ROW, figsize=(11, 2.6 * height), squeeze=False, layout="constrained")
    for axes, result in zip(grid.flat, shown, strict=False):
        bars(axes, titles[result["benchmark"]], result["rows"], floors.get(result["benchmark"]))
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    gpus = sorted({result["machine"]["gpu"] for result in shown})
    figure.suptitle(f"Milliseconds on {', '.join(gpus)} (fp16, random weights; less is better)", fontsize=11)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)
