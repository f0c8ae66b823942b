"""Counts the operations of the SD1.5 UNet: as traced, and in each stage after fusing. Needs no GPU and no weights.

python -m benchmarks.bench_stages
"""

from __future__ import annotations

import torch

from benchmarks.common import write_result
from modules.models.configs import UNetConfig
from modules.models.unet import UNet
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.passes import PASSES
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.unet_call import BINDINGS

DIMS = {
    "x": ("batch", None, "8*height", "8*width"),
    "timesteps": ("batch",),
    "context": ("batch", "tokens", None),
}


@torch.inference_mode()
def main() -> None:
    config = UNetConfig()
    with torch.device("meta"):
        store = WeightStore(UNet(config))
        call = {
            "x": torch.empty(2, config.in_channels, 64, 64),
            "timesteps": torch.empty(2),
            "context": torch.empty(2, 77, config.context_dim),
        }
    _, report = compile_program(store, call, bindings=BINDINGS, dims=DIMS, passes=PASSES, reads_kept=False)
    rows: list[dict[str, object]] = [{"label": "traced", "operations": report.nodes_before}]
    rows += [{"label": stage, "operations": count} for stage, count in report.stage_nodes.items()]
    write_result("stages-sd15", rows)


if __name__ == "__main__":
    main()
