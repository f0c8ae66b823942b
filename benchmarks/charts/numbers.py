"""Writes the text of each marked place in README.md and docs/, by its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.charts.marked_places import Writer
from benchmarks.charts.results import Result, on_gpu, read_results, rows_by_label, table
from benchmarks.common import RESULTS
from benchmarks.networks.namesake import NAMESAKES, PACKAGE
from tools.demo_model import evaluate, evaluate_extras, evaluate_xl
from tools.demo_model.judging import results as judgements

EAGER = ("diffusers", "diffusers-channels-last")  # two memory layouts; the faster one counts
COMPILED = ("diffusers-reduce-overhead", "diffusers-max-autotune")
WORKLOADS = {
    "unet-sd15-512-b2-float16": "SD1.5, one step at 512 x 512",
    "unet-sd15-512-b8-float16": "SD1.5, one step of four pictures at 512 x 512",
    "unet-sd15-1024-b2-float16": "SD1.5, one step at 1024 x 1024",
    "unet-sd21-768-b2-float16": "SD2.1, one step at 768 x 768",
    "controlnet-sd15-512-b2": "SD1.5 with a ControlNet, one step at 512 x 512",
    "vae-sd15-512-b1": "VAE, decoding 512 x 512",
    "generate-sd15-512": "SD1.5, a whole picture: 512 x 512, 20 steps",
    "unet-sdxl-1024-b2-float16": "SDXL, one step at 1024 x 1024",
    "picture-sdxl-1024": "SDXL, 30 steps and decoding: 1024 x 1024",
}
README_WORKLOADS = (
    "unet-sd15-512-b2-float16",
    "unet-sd15-1024-b2-float16",
    "unet-sd21-768-b2-float16",
    "generate-sd15-512",
    "unet-sdxl-1024-b2-float16",
    "picture-sdxl-1024",
)
COSTS = {"SD1.5 at 512 x 512": "sd15-512", "SDXL at 1024 x 1024": "sdxl-1024"}
NOT_MEASURED = "not measured"
STAGES = ("weights", "prompt", "time", "shared", "step")


def gpu_results() -> dict[str, Result]:
    return {result["benchmark"]: result for result in read_results() if on_gpu(result)}


def fastest(result: Result, labels: Iterable[str]) -> str:
    """Returns the milliseconds of the fastest of these ways, or "" if none was timed."""
    rows = rows_by_label(result)
    times = [rows[label]["ms"] for label in labels if "ms" in rows.get(label, {})]
    return milliseconds(min(times)) if times else ""


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def between(values: Sequence[float], unit: str) -> str:
    low, high = round(min(values)), round(max(values))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def measured_on(results: Iterable[Result]) -> str:
    machines = [result["machine"] for result in results]
    gpus = ", ".join(sorted({machine["gpu"] for machine in machines}))
    versions = ", ".join(
        f"{package} {', '.join(sorted({machine['versions'][package] for machine in machines}))}"
        for package in ("torch", "triton", "diffusers")
    )
    return f"{gpus}, {versions}"


def for_readme() -> list[str]:
    results = {name: gpu_results()[name] for name in README_WORKLOADS}
    rows = [
        (WORKLOADS[name], *(fastest(result, labels) or NOT_MEASURED for labels in (["full"], COMPILED, EAGER)))
        for name, result in results.items()
    ]
    headings = ["milliseconds", "Stable-Fast", "diffusers, `torch.compile`", "diffusers, eager"]
    lacking = [name for name, result in results.items() if not fastest(result, ["diffusers-max-autotune"])]
    return [*table(headings, rows), "", f"Measured on one {measured_on(results.values())}.", *about_autotune(lacking)]


def about_autotune(lacking: Sequence[str]) -> list[str]:
    """Says of each workload without `max-autotune` what a run of its own gave, or that there was none."""
    alone = {name: gpu_results().get(f"{name}-autotune") for name in lacking}
    missing = [WORKLOADS[name] for name, result in alone.items() if result is None]
    lines = [
        f"{WORKLOADS[name]}, in a run of its own with `max-autotune`: it took "
        f"{fastest(result, ['diffusers-max-autotune'])} ms, `reduce-overhead` "
        f"{fastest(result, ['diffusers-reduce-overhead'])} and Stable-Fast {fastest(result, ['full'])}."
        for name, result in alone.items()
        if result is not None
    ]
    if missing:
        lines.append(f"Not measured with `max-autotune`: {'; '.join(missing)}.")
    return [part for line in lines for part in ("", line)]


def speed() -> list[str]:
    columns = {
        "Stable-Fast `full`": ["full"],
        "eager": EAGER,
        "blocks compiled": ["diffusers-regional"],
        "`reduce-overhead`": ["diffusers-reduce-overhead"],
        "`max-autotune`": ["diffusers-max-autotune"],
    }
    results = {name: gpu_results()[name] for name in WORKLOADS}
    rows = [
        (WORKLOADS[name], *(fastest(result, labels) for labels in columns.values())) for name, result in results.items()
    ]
    where = f"Measured on one {measured_on(results.values())}."
    return [*table(["milliseconds", *columns], rows), "", where, *about_namesake()]


def about_namesake() -> list[str]:
    """Says what stable-fast-pruna took beside Stable-Fast, workload by workload, in the runs that had it."""
    beside = {title: gpu_results().get(f"{name}-namesake") for name, title in WORKLOADS.items()}
    lines = [
        f"{title}, in a run of its own with `{PACKAGE}` {result['machine']['versions'][PACKAGE]}: it took "
        f"{fastest(result, NAMESAKES[:1])} ms as it comes and {fastest(result, NAMESAKES[1:])} with sums in fp32, "
        f"and Stable-Fast {fastest(result, ['full'])}."
        for title, result in beside.items()
        if result is not None and all(fastest(result, [label]) for label in NAMESAKES)
    ]
    return [part for line in lines for part in ("", line)]


def costs() -> list[str]:
    columns = [costs_of(workload) for workload in COSTS.values()]
    return table(["what", *COSTS], [(what, *(column[what] for column in columns)) for what in columns[0]])


def costs_of(workload: str) -> dict[str, str]:
    """Lists Stable-Fast's compile times, LoRA switches and memory, and its opponents' compile times."""
    results = gpu_results()
    first = rows_by_label(results[f"compile-{workload}-b2"])
    cold, warm = first["full cold"], first["full warm"]
    switch = rows_by_label(results[f"lora-switch-{workload}-rank32"])
    kinds = [switch[f"full {kind}"] for kind in ("on", "strength", "other")]
    steps = rows_by_label(results[f"unet-{workload}-b2-float16"])
    memory = rows_by_label(results.get(f"memory-{workload}-b2", {"rows": []}))
    return {
        "the first call, with nothing kept on disk": f"{cold['first_call_seconds']:.1f} s",
        "the first call of a later start": f"{warm['first_call_seconds']:.1f} s",
        "a new size, then the same size at a later start":
            f"{cold['new_resolution_seconds']:.1f} s, {warm['new_resolution_seconds']:.1f} s",
        "for comparison: the first call by `reduce-overhead`, by `max-autotune`":
            listed(steps, COMPILED, "first_call_seconds", "{:.0f} s"),
        "put a LoRA on, change its strength, or exchange it; take it off":
            f"{between([row['median'] * 1000 for row in kinds], 'ms')}; {switch['full off']['median'] * 1000:.0f} ms",
        "GPU memory of a step: `full`, `fused`, eager":
            listed(memory, ("full", "fused", "eager"), "reserved_mib", "{:.0f} MiB"),
    }  # fmt: skip


def listed(rows: Mapping[str, Mapping[str, Any]], labels: Sequence[str], key: str, form: str) -> str:
    """Returns one value of each of these rows, or says that none of them was measured."""
    if not any(label in rows for label in labels):
        return NOT_MEASURED
    return ", ".join(form.format(rows[label][key]) if label in rows else NOT_MEASURED for label in labels)


def eight_bits_quality() -> list[str]:
    """A row for each way in which a demo model was judged, against eager float32 with the same LoRA."""
    results = [each for each in read_results() if each["benchmark"].startswith("quality-eight-bits")]
    rows: list[tuple[str, ...]] = []
    for result in results:
        model, steps = (result["arguments"][name] for name in ("checkpoint", "steps"))
        for row in result["rows"]:
            holding = f"{row['score']:.3f} of {row['judgements']}" if "score" in row else ""
            alike = (f"{row['psnr']:.1f} dB ({row['worst']:.1f})", f"{row['ssim']:.4f}")
            is_reference = row["label"].startswith("off")
            if is_reference and not holding:
                continue
            way = row["label"].removeprefix("fused ").replace("off ", "eager ")
            rows.append(
                (f"{model}, {way}", f"{row['pictures']} x {steps}", holding, *(("", "") if is_reference else alike))
            )
    return [*table(["", "pictures x steps", "judgements that hold", "PSNR, median (worst)", "SSIM, median"], rows)]


def quality() -> list[str]:
    results = gpu_results()
    errors = rows_by_label(results["unet-sd15-512-b2-float16"])
    judged = rows_by_label(results["quality-demo"])

    def row(name: str, label: str, error: str) -> tuple[str, ...]:
        return name, error, f"{judged[label]['score']:.3f}", f"{judged[label]['psnr']:.0f} dB"

    return table(
        ["", "error of a step against fp32", "judgements that hold", "PSNR against eager fp32"],
        [
            row("eager, fp16", "off float16", f"{errors['eager']['relative_error']:.1e}"),
            row("Stable-Fast `full`, fp16", "full float16", f"{errors['full']['relative_error']:.1e}"),
        ],
    )


def stages() -> list[str]:
    (result,) = (result for result in read_results() if result["benchmark"] == "stages-sd15")
    counts = {label: row["operations"] for label, row in rows_by_label(result).items()}
    total = sum(counts[stage] for stage in STAGES)
    headings = ["as traced", "fused and staged", *(f"*{stage}*" for stage in STAGES)]
    return table(headings, [[str(counts["traced"]), str(total), *(str(counts[stage]) for stage in STAGES)]])


def demo_report(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def demo_judgements(name: str, floors: Mapping[str, float]) -> list[str]:
    scores = {
        label: score for label, score in demo_report(name).items() if isinstance(score, dict) and "share" in score
    }
    results = {label: judgements.Result(**score) for label, score in scores.items()}
    return judgements.table(results, floors).splitlines()


def demo_speed() -> list[str]:
    seconds = demo_report("demo-extras")["seconds per image"]
    number, median, worst = seconds["number"], seconds["median"], seconds["worst"]
    return [
        f"A picture of the native size takes {median:.2f} s on two cores of an AMD EPYC server, after loading.",
        f"That is the median of {number} pictures with 20 steps, CFG 7 and fp32. The slowest took {worst:.2f} s.",
    ]


WRITERS: dict[str, Writer] = {
    "readme": for_readme,
    "speed": speed,
    "costs": costs,
    "quality": quality,
    "eight-bits-quality": eight_bits_quality,
    "stages": stages,
    "demo-model": lambda: evaluate.table(demo_report("demo-model")).splitlines(),
    "demo-extras": lambda: demo_judgements("demo-extras", evaluate_extras.FLOORS),
    "demo-xl": lambda: demo_judgements("demo-xl", evaluate_xl.FLOORS),
    "demo-speed": demo_speed,
}
