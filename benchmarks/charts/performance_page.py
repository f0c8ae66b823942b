"""Writes docs/performance.md: every result as a table, with the machine it was measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.charts.results import Result, on_gpu, place, table

PLOT = "images/performance.svg"  # the path on the page
COLUMNS = {  # key of a row -> heading and number format
    "ms": ("ms", "{:.2f}"),
    "fastest_ms": ("fastest", "{:.2f}"),
    "host_ms": ("host ms", "{:.2f}"),
    "first_call_seconds": ("first call s", "{:.1f}"),
    "first_step_seconds": ("first step s", "{:.1f}"),
    "first_picture_seconds": ("first picture s", "{:.1f}"),
    "new_resolution_seconds": ("new size s", "{:.1f}"),
    "lora_switch_seconds": ("LoRA switch s", "{:.3f}"),
    "median": ("s", "{:.3f}"),
    "seconds": ("s", "{:.1f}"),
    "first_ms": ("first ms", "{:.1f}"),
    "recaptures": ("recaptures", "{}"),
    "retraces": ("traces", "{}"),
    "break_even_images": ("pays from picture", "{}"),
    "compile_peak_mib": ("peak while compiling, MiB", "{:.0f}"),
    "peak_mib": ("peak MiB", "{:.0f}"),
    "peak_allocated_mib": ("peak MiB", "{:.0f}"),
    "peak_reserved_mib": ("peak reserved, MiB", "{:.0f}"),
    "held_mib": ("held afterwards, MiB", "{:.0f}"),
    "reserved_mib": ("held with graphs, MiB", "{:.0f}"),
    "relative_error": ("error to fp32", "{:.1e}"),
    "load_s": ("load s", "{:.2f}"),
    "use_s": ("load and first use s", "{:.2f}"),
    "peak_over_file": ("peak / file size", "{:.2f}"),
    "pictures": ("pictures", "{}"),
    "size": ("size", "{}"),
    "ratio": ("ratio", "{:.3f}"),
    "low": ("from", "{:.2f}"),
    "high": ("to", "{:.2f}"),
    "verdict": ("beyond noise", "{}"),
    "over_tuned": ("× its tuned time", "{:.3f}"),
    "probes": ("probes", "{}"),
    "left_out": ("rows left out in turn", "{}"),
    "best_among_first": ("best among the first four", "{:.2f}"),
    "time_over_best": ("× the best time", "{:.4f}"),
    "compiled_kernels": ("kernels", "{}"),
    "kernel_seconds": ("compiling them, s", "{:.1f}"),
    "probe_seconds": ("timing probes, s", "{:.1f}"),
    "compiled_over_this": ("`reduce-overhead` takes ×", "{:.2f}"),
    "clients": ("clients", "{}"),
    "workers": ("workers", "{}"),
    "pictures_per_second": ("pictures/s", "{:.2f}"),
    "share_of_linear": ("share of linear", "{:.3f}"),
    "p50_seconds": ("median s", "{:.2f}"),
    "p99_seconds": ("99 % within s", "{:.2f}"),
    "gpu_share": ("GPU's share", "{:.0%}"),
    "overhead_ms": ("overhead ms", "{:.1f}"),
    "start_seconds": ("start s", "{:.1f}"),
    "recovery_seconds": ("back after kill -9, s", "{:.1f}"),
    "score": ("judgements that hold", "{:.3f}"),
    "psnr": ("PSNR to eager fp32, dB", "{:.1f}"),
    "operations": ("operations", "{}"),
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
    "unet-sdxl-1024-b2-float16": "SDXL UNet step, 1024², CFG batch 2",
    "picture-sdxl-1024": "SDXL, 1024², 30 steps Euler and decoding alone",
    "lora-switch-sdxl-1024-rank32": "LoRA switch, SDXL, rank 32 on all attention weights",
    "compile-sdxl-1024-b2": "First calls of the SDXL UNet with empty (cold) and filled (warm) caches, new resolution",
    "memory-sdxl-1024-auto-full": "SDXL within 7.0 GiB: 1024², 4 steps, LoRA, Stable-Fast",
    "memory-sdxl-1024-auto-off": "SDXL within 7.0 GiB: 1024², 4 steps, LoRA, overflowing VAE, no Stable-Fast",
    "quality-demo": "Quality: the demo model's pictures, judged (see `benchmarks/bench_quality.py`)",
}
TITLES = WANTED | {
    "untuned-first-call": "First steps with empty caches, without a table of the card's own, at 512² and 1024²",
    "unet-sd15-512-b2-float16-sums": "Sums of products in fp16 on a card without need of them: SD1.5 UNet step, 512²",
    "eight-bits": "Eight bits beside half: UNet steps, 1024², CFG batch 2 (see `benchmarks/gpu/bench_eight_bits.py`)",
    "eight-bits-mma": "int8 beside half on a GPU that passes for an RTX 40 (8.9): SDXL UNet step, 1024², CFG batch 2",
    "throughput-sdxl-1024-20": "SDXL from a queue that is never empty: 1024², 20 steps Euler, guidance 8",
    "throughput-sdxl-1024-20-fp8": "The same in `fp8`",
    "throughput-sdxl-1024-4-alone": "SDXL, 1024², 4 steps without guidance, one request after the other",
    "memory-sdxl-1024-low-full-fp8-weights": "SDXL within 5.2 GiB: 1024², 4 steps, LoRA, weights in fp8, Stable-Fast",
    "memory-sd15-512-low-full-fp8-weights": "SD1.5 within 2.2 GiB: 512², 4 steps, LoRA, weights in fp8, Stable-Fast",
    "quality-eight-bits": "Eight bits, emulated on a CPU: the demo model (see `benchmarks/bench_quality.py`)",
    "quality-eight-bits-xl": "Eight bits, emulated on a CPU: the demo model of SDXL's layout",
    "quality-eight-bits-loras": "Eight bits, emulated on a CPU: the demo model with LoRAs",
    "quality-eight-bits-xl-loras": "Eight bits, emulated on a CPU: the demo model of SDXL's layout with a LoRA",
    "quality-eight-bits-weights": "Weights in eight bits, emulated on a CPU: the demo model",
    "quality-eight-bits-xl-weights": "Weights in eight bits, emulated on a CPU: the demo model of SDXL's layout",
    "sums-in-fp16-emulated": "Sums of products in fp16, emulated on a CPU (see `benchmarks/cpu/bench_sums.py`)",
    "load": "Loading an SD1.5 checkpoint of 2 GiB",
    "stages-sd15": "Operations of the SD1.5 UNet: as traced, then fused and staged",
    "unet-sdxl-1024-b2-float16-autotune": "SDXL UNet step beside `max-autotune` (1024², CFG batch 2, caches warm)",
    "unet-sd15-512-b2-float16-namesake": "SD1.5 UNet step beside stable-fast-pruna (512², CFG batch 2)",
    "server-sd15-512-20": "1 and 16 clients at once, one GPU: SD1.5, 512², 20 steps Euler, guidance",
    "server-sd15-512-4": "1 and 16 clients at once, one GPU: SD1.5, 512², 4 steps, no guidance",
    "untuned": "Without a table of the card's own, as it is (own) and as an RTX 40 (8.9): UNet steps, CFG batch 2",
    "untuned-sdxl": "The same for SDXL, also as an A100 (8.0), before a first step timed anything",
    "untuned-probes": "The same at six sizes, with what a first step times (probes): UNet steps, CFG batch 2",
    "untuned-probes-8.9": "The same as an RTX 40, with probes: SD1.5 UNet steps, CFG batch 2",
    "pipelines-sd15": "diffusers' SD1.5 UNet by `compile_pipeline` beside the product's step, 512², CFG batch 2",
    "pipelines-sdxl": "diffusers' SDXL UNet by `compile_pipeline` beside the product's step, 1024², CFG batch 2",
    "pipelines-svd": "Stable Video Diffusion's UNet by `compile_pipeline`: 14 frames, 576 x 1024",
    "pipelines-flux": "A Flux-like transformer by `compile_pipeline`: 4 and 8 blocks, 4096 + 512 tokens",
    "pipelines-clip": "CLIP-L's text encoder by `compile_pipeline`",
    "pipelines-t5": "T5-XXL's encoder, 24 layers, by `compile_pipeline` and `compile_module`",
    "cluster-sd15-512": "One and two GPUs through Ray: SD1.5, 512², 20 steps, one picture at a time",
    "cluster-sdxl-1024": "One and two GPUs through Ray: SDXL, 1024², 20 steps, guidance 8, one picture at a time",
    "quality-demo-skip": "Quality of skipped steps: the demo model's pictures, judged, on a CPU",
    "lone-sd15-512": "SD1.5, 512², one request after the other, each with its own prompt: from prompt to pixels",
    "page": "The web page: from ./run.sh, and from a click on Generate, to what one sees; a picture of 512 px",
    "start": "From the start of the process to the help text, or to the first step of the demo model",
    "order-of-candidates": "Tuning's first four of each call, by the shipped tables, each row left out in turn",
    "fused-on-cpu": "UNet steps on a CPU in turns: ratios, and from where to where their medians are at 95 %",
    "unet-sd15-256-b2-float32": "SD1.5 UNet step, 256², CFG batch 2, on a CPU",
}
STEP_OPPONENTS = ("diffusers", "diffusers-channels-last", "diffusers-regional", "diffusers-max-autotune")
OPPONENTS = {
    **{name: STEP_OPPONENTS for name in WANTED if name.startswith("unet")},
    "vae-sd15-512-b1": ("diffusers", "diffusers-channels-last", "diffusers-max-autotune"),
    "controlnet-sd15-512-b2": ("diffusers", "diffusers-channels-last", "diffusers-max-autotune"),
    "generate-sd15-512": ("diffusers", "diffusers-regional", "diffusers-max-autotune"),
    "picture-sdxl-1024": ("diffusers", "diffusers-reduce-overhead", "diffusers-max-autotune"),
}
# The shortest possible time of fused kernels at 790 TFLOP/s and 4.3 TB/s, including exponentials.
FLOORS_MS = {
    "unet-sd15-512-b2-float16": 2.41,
    "unet-sd15-512-b8-float16": 9.37,
    "unet-sd15-1024-b2-float16": 14.0,
    "unet-sd21-768-b2-float16": 5.97,
    "unet-sdxl-1024-b2-float16": 18.3,
    "vae-sd15-512-b1": 3.74,
}
HEAD = (
    "# Performance",
    "",
    "`python -m benchmarks.charts.draw` writes this page from `benchmarks/results/`.",
    "The networks have random weights and real shapes.",
    "The times are medians of interleaved rounds in one process. CUDA events measure the time of the GPU.",
    "Where *host ms* is about as large as *ms*, the CPU is the limit and not the GPU.",
    "Such rows, and ratios to them, depend on the CPU of that machine.",
    "Only the newest result of each benchmark is shown here. The folder has older ones.",
    "",
    f"![Milliseconds of each way, workload by workload]({PLOT})",
)
NOTE = (
    "Peaks in this table grow from row to row, because all its networks are in the same GPU memory.",
    "What each of them needs alone was measured for SD1.5 at 512² only; see the table of memory.",
)


def measured(result: Result) -> list[str]:
    rows = result["rows"]
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    base = next((row["ms"] for row in rows if row.get("label") == "diffusers" and "ms" in row), None)
    headings = ["", *(COLUMNS[key][0] for key in keys)] + ["× diffusers eager"] * (base is not None)
    body: list[list[str]] = []
    for row in rows:
        label = label_of(row)
        cells = [COLUMNS[key][1].format(row[key]) if row.get(key) is not None else "" for key in keys]
        body.append([label, *cells] + ([f"{base / row['ms']:.2f}" if "ms" in row else ""] if base else []))
    note = ["", *NOTE] if "first_call_seconds" in keys and "peak_mib" in keys else []
    floor = FLOORS_MS.get(result["benchmark"])
    best = [row["ms"] for row in rows if row.get("label") == "full" and "ms" in row]
    if floor and best:
        note += ["", f"The floor is {floor} ms: `full` reaches {floor / best[0]:.0%} of it."]
    return [
        f"## {TITLES.get(result['benchmark'], result['benchmark'])}",
        "",
        *place(result),
        "",
        *table(headings, body),
        *note,
    ]


def label_of(row: Mapping[str, Any]) -> str:
    if "workers" in row:
        return "full"
    return row.get("label") or f"{row['loader']}, {row['dtype']}"


def profiled(result: Result) -> list[str]:
    rows, total = result["rows"], result["total_us"]
    count = sum(row["count"] for row in rows)
    shares = [
        (f"`{row['label'][:70]}`", f"{row['count']:g}", f"{row['us']:.0f}", f"{row['us'] / total:.0%}")
        for row in rows[:15]
    ]
    return [
        f"## Where the time of one step goes ({result['benchmark']})", "", *place(result), "",
        f"{count:.0f} kernels, {total / 1000:.2f} ms of GPU time; the fifteen largest:", "",
        *table(["kernel", "calls", "µs", "share"], shares),
    ]  # fmt: skip


def not_measured(results: Sequence[Result]) -> list[str]:
    """Lists the subjects that have not been measured on a GPU yet, or failed there."""
    done = {result["benchmark"] for result in results if any("error" not in row for row in result["rows"])}
    timed = {
        (result["benchmark"].removesuffix("-autotune"), row["label"])
        for result in results
        for row in result["rows"]
        if "ms" in row
    }
    failed = {(result["benchmark"], row["label"]) for result in results for row in result["rows"] if "error" in row}
    lines = [f"- {title}" for name, title in WANTED.items() if name not in done]
    return lines + [
        f"- {WANTED[name]}: {', '.join(mode + ' (failed)' * ((name, mode) in failed) for mode in missing)}"
        for name, opponents in OPPONENTS.items()
        if (missing := [mode for mode in opponents if (name, mode) not in timed])
    ]


def performance_page(results: Sequence[Result]) -> str:
    lines = [*HEAD]
    for result in sorted(results, key=lambda result: not on_gpu(result)):
        lines += ["", *(profiled(result) if result["benchmark"].startswith("profile") else measured(result))]
    if missing := not_measured([result for result in results if on_gpu(result)]):
        lines += ["", "## Not measured yet on a GPU", "", *missing]
    return "\n".join(lines) + "\n"
