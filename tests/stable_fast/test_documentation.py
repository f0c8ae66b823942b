"""What docs/stable_fast.md counts in an SD1.5 UNet is what the program makes of one."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from modules.models.configs import UNetConfig
from modules.models.unet import UNet
from modules.stable_fast.fusing import fuse
from modules.stable_fast.passes import PASSES
from modules.stable_fast.staging import STAGES, split
from modules.stable_fast.unet_call import BINDINGS
from tests.stable_fast.networks import UNET_DIMS, unet_call

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "stable_fast.md").read_text(encoding="utf-8")


def test_the_counts_of_the_stages_are_those_of_the_documentation() -> None:
    """The whole network, on a device without memory: a tiny one with two levels of one width has fewer operations."""
    config = UNetConfig()
    with torch.device("meta"):
        network = UNet(config)
    call = {name: tensor.to("meta") for name, tensor in unet_call(config, height=64, width=64).items()}
    fused = fuse(network, call, BINDINGS, UNET_DIMS, PASSES)
    drawn = {
        name: int(count) for name, count in re.findall(r"^ │ (\w+) +│.* (\d+)   (?:once|each)", TEXT, re.MULTILINE)
    }
    (told,) = re.findall(r"has (\d+) operations; fused and staged (\d+)", TEXT)
    assert drawn == {name: len(stage) for name, stage in split(fused.traced.graph).items()}
    assert list(drawn) == list(STAGES)
    assert [int(count) for count in told] == [fused.nodes_before, sum(drawn.values())]
