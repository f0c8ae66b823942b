"""First measurements on a GPU, in about three minutes: are the kernels right, and which implementation is fastest?

    python -m benchmarks.gpu.probe_gpu --out DIR [--budget 120] [--batch 2] [--latent 64]

Writes DIR/probe.json (rewritten after each part, so a later failure loses nothing) and DIR/tuned-*.json, which can be
copied to modules/stable_fast/store/tuned/<gpu>.json as shipped choices. If a part fails, its error goes into the JSON.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.sd15_shapes import OpCall, all_calls, random_rows
from modules.stable_fast.doctor.self_test import check_all
from modules.stable_fast.kernels.attention import attention_packed
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.conv.cudnn_graph import HAS_CUDNN_FRONTEND
from modules.stable_fast.kernels.devices import card_class
from modules.stable_fast.kernels.timing import time_on_gpu
from modules.stable_fast.store import tables, tuning

Results = dict[str, Any]


def attempt(results: Results, name: str, part: Callable[[], Any]) -> None:
    """Runs one part and records a failure as its result, because the machine is only on loan for minutes."""
    started = time.perf_counter()
    try:
        results[name] = part()
    except Exception as error:  # noqa: BLE001 - recorded in full: one failed part must not lose other results
        results[name] = {"error": repr(error), "where": traceback.format_exc(limit=-4)}
        print(f"{name}: FAILED {error!r}")
    results.setdefault("seconds", {})[name] = round(time.perf_counter() - started, 1)


def gpu_details() -> Results:
    properties = torch.cuda.get_device_properties(0)
    return {
        **tables.environment(torch.device("cuda")),
        "multiprocessors": properties.multi_processor_count,
        "l2_mib": properties.L2_cache_size >> 20,
        "cudnn_frontend": HAS_CUDNN_FRONTEND,
    }


def correctness() -> Results:
    found: Results = {}
    for dtype in (torch.float16, torch.bfloat16):
        checks = check_all(torch.device("cuda"), dtype)
        ran = [c for c in checks if not c.refused]
        found[str(dtype)] = {
            "ran": len(ran),
            "failed": [vars(c) for c in ran if not c.passed],
            "refused": sorted({f"{c.implementation}: {c.refused[:150]}" for c in checks if c.refused})[:20],
            "worst": max(c.error for c in ran),
        }
        print(f"correctness {dtype}: {len(ran)} ran, {len(found[str(dtype)]['failed'])} failed")
        for failure in found[str(dtype)]["failed"]:
            print("   ", failure)
    return found


def kernel_gap(kernels: int = 300) -> Results:
    """Returns the microseconds that a tiny kernel costs in a graph."""
    x = torch.zeros(1024, device="cuda", dtype=torch.float16)

    def milliseconds(count: int) -> float:
        def body() -> None:
            for _ in range(count):
                x.add_(1)

        return time_on_gpu(body, x)

    return {"us_per_small_kernel": 1000 * (milliseconds(2 * kernels) - milliseconds(kernels)) / kernels}


def candidates(call: OpCall, seconds: float) -> Results:
    """Returns the milliseconds of every implementation of one call, and of the equivalent plain PyTorch code."""
    tuner = tuning.BudgetTuner(seconds, time_on_gpu)
    CHOICES.tuner = tuner
    operator = getattr(torch.ops.lightdiffusion, call.op)
    try:
        operator(*call.args)
    finally:
        CHOICES.tuner = None
    found: Results = {"eager": time_on_gpu(call.eager, call.args[0])}
    for measured in tuner.measured:
        found |= measured.milliseconds
    if not tuner.measured:  # the op has only one implementation
        found["only"] = time_on_gpu(lambda: operator(*call.args), call.args[0])
    ours = {name: ms for name, ms in found.items() if name != "eager"}
    best = min(ours, key=lambda name: ours[name])
    return {
        "op": call.op, "best": best, "best_over_eager": round(found["eager"] / max(ours[best], 1e-6), 3),
        "best_tflops": round(call.flops / max(ours[best], 1e-6) / 1e9, 1),
        "us": {name: round(1000 * ms, 2) for name, ms in sorted(found.items(), key=lambda item: item[1])},
        "measured": [[m.op, list(m.key), m.name, m.milliseconds] for m in tuner.measured],
    }  # fmt: skip


def ops(results: Results, arguments: argparse.Namespace, save: Callable[[], None]) -> None:
    deadline = time.perf_counter() + arguments.budget
    done: Results = {}
    results["ops"] = done
    for call in all_calls(arguments.batch, arguments.latent):
        if time.perf_counter() > deadline:
            results["ops_cut_short"] = call.label
            print(f"budget spent before {call.label}")
            break
        attempt(done, call.label, lambda call=call: candidates(call, 20.0))
        row = done[call.label]
        if "us" in row:
            shown = ", ".join(f"{name} {us}" for name, us in list(row["us"].items())[:6])
            print(f"{call.label:40s} {row['best_tflops']:6.0f} TF  x{row['best_over_eager']:.2f}  {shown}")
        save()


def attention_layouts() -> Results:
    """Compares packed strided views with contiguous [B, H, L, D] operands for each implementation."""
    found: Results = {}
    for head, heads, length in ((40, 8, 4096), (80, 8, 1024), (160, 8, 256), (64, 5, 9216)):
        packed = random_rows(2, length, 3 * heads * head).unflatten(-1, (3, heads, head)).unbind(2)
        dense = tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in packed)
        for name, implementation in attention_packed.CANDIDATES.on(card_class(packed[0])).items():
            for layout, parts in (("packed", packed), ("contiguous", dense)):
                if name.startswith("triton") and layout == "contiguous":
                    continue
                label = f"d{head} x{length} {name} {layout}"
                attempt(
                    found, label, lambda i=implementation, p=parts: round(1000 * time_on_gpu(lambda: i(*p), p[0]), 2)
                )
    return found


def keep_choices(results: Results, out: Path) -> str:
    measured = [
        tables.Measured(op, tuple(key), name, times)
        for row in results["ops"].values()
        if "measured" in row
        for op, key, name, times in row["measured"]
    ]
    described = tables.environment(torch.device("cuda"))
    path = tables.choices_path(out, described)
    tables.write_choices(path, described, measured)
    return path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for timing the ops' candidates")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--latent", type=int, default=64)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: Results = {}

    def save() -> None:
        (arguments.out / "probe.json").write_text(json.dumps(results, indent=1))

    with torch.inference_mode():
        attempt(results, "machine", gpu_details)
        print(results["machine"])
        for name, part in (("correctness", correctness), ("kernel_gap", kernel_gap), ("layouts", attention_layouts)):
            attempt(results, name, part)
            save()
        print("kernel gap", results["kernel_gap"])
        print("layouts", json.dumps(results["layouts"]))
        ops(results, arguments, save)
        attempt(results, "choices", lambda: keep_choices(results, arguments.out))
    save()
    print(json.dumps(results["seconds"]))


if __name__ == "__main__":
    main()
