"""Times every implementation of one op (or of all) at the shapes of the SD1.5 UNet. The last line printed is JSON.

python -m benchmarks.gpu.bench_ops [--op linear_geglu] [--batch 2] [--latent 64]
"""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks.gpu.probe_gpu import candidates, gpu_details
from benchmarks.gpu.sd15_shapes import all_calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", help="only this op, such as linear_geglu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--latent", type=int, default=64)
    arguments = parser.parse_args()
    rows = {}
    with torch.inference_mode():
        for call in all_calls(arguments.batch, arguments.latent):
            if arguments.op in (None, call.op):
                row = candidates(call, 60.0)
                rows[call.label] = {name: row[name] for name in ("op", "best", "best_over_eager", "best_tflops", "us")}
                print(f"{call.label:40s} {row['best']:20s} x{row['best_over_eager']:.2f} {row['us']}")
    print(json.dumps({"machine": gpu_details(), "rows": rows}))


if __name__ == "__main__":
    main()
