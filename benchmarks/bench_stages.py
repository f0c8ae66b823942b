"""Counts the operations of the SD1.5 UNet: as traced, and in each stage after fusing. Needs no GPU and no weights.

python -m benchmarks.bench_stages
"""

from __future__ import annotations

import torch

from benchmarks.common import write_result
from modules.models.configs import UNetConfig
from modules.models.unet import UNet
from modules.stable_fast.graph.fuse import fuse
from modules.stable_fast.graph.staging import split
from modules.stable_fast.passes import PASSES
from modules.stable_fast.unet_call import BINDINGS

DIMS = {
    "x": ("batch", None, "8*height", "8*width"),
    "timesteps": ("batch",),
    "context": ("batch", "tokens", None),
}


def main() -> None:
    config = UNetConfig()
    with torch.device("meta"):
        network = UNet(config)
        call = {
            "x": torch.empty(2, config.in_channels, 64, 64),
            "timesteps": torch.empty(2),
            "context": torch.empty(2, 77, config.context_dim),
        }
    fused = fuse(network, call, BINDINGS, DIMS, PASSES)
    rows: list[dict[str, object]] = [{"label": "traced", "operations": fused.nodes_before}]
    rows += [{"label": name, "operations": len(stage)} for name, stage in split(fused.traced.graph).items()]
    write_result("stages-sd15", rows)


if __name__ == "__main__":
    main()
