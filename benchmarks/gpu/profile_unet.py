"""Profiles one Stable-Fast UNet step: every kernel with its count and microseconds (NVIDIA GPU).

python -m benchmarks.gpu.profile_unet --size 512 --batch 2 [--level fused]
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_unet import MODELS, Bench
from benchmarks.common import write_result


@torch.inference_mode()
def kernels(bench: Bench, level: str, tuning: float, steps: int) -> list[dict[str, object]]:
    """Returns the kernels of one step, the most expensive first. Values are means over `steps` steps."""
    step = bench.ours(level, tuning=tuning)()
    for _ in range(3):
        step(bench.x)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(steps):
            step(bench.x)
        torch.cuda.synchronize()
    microseconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in recorded.events():
        if event.device_type.name == "CUDA":
            microseconds[event.name] += event.device_time_total
            counts[event.name] += 1
    return [
        {"label": name[:200], "count": counts[name] / steps, "us": total / steps}
        for name, total in microseconds.most_common()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="sd15")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--level", choices=("off", "graph", "fused", "full"), default="full")
    parser.add_argument("--tuning-seconds", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    arguments.device, arguments.dtype = "cuda", "float16"
    rows = kernels(Bench(arguments), arguments.level, arguments.tuning_seconds, arguments.steps)
    for row in rows[:40]:
        print(f"{row['us']:9.1f} us  {row['count']:6.1f}x  {row['label']}")
    total = sum(float(str(row["us"])) for row in rows)
    print(f"{total:9.1f} us in {sum(float(str(row['count'])) for row in rows):.0f} kernels")
    name = f"profile-{arguments.model}-{arguments.size}-b{arguments.batch}-{arguments.level}"
    write_result(name, rows, arguments=vars(arguments), total_us=total)


if __name__ == "__main__":
    main()
