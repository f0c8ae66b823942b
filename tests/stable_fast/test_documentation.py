"""Numbers of docs/stable_fast.md: what it counts in an SD1.5 UNet, and what it says was measured of a LoRA switch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from modules.models.configs import UNetConfig
from modules.models.unet import UNet
from modules.stable_fast.fuse import fuse
from modules.stable_fast.graph.staging import STAGES, split
from modules.stable_fast.passes import PASSES
from modules.stable_fast.unet_call import BINDINGS
from tests.stable_fast.networks import UNET_DIMS, unet_call

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "stable_fast.md").read_text(encoding="utf-8")


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


def test_a_lora_switch_takes_what_was_measured() -> None:
    files = (ROOT / "benchmarks" / "results").glob("lora-switch-sd15-512-rank32-*.json")
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    newest = max(results, key=lambda result: result["machine"]["date"])
    rows = {row["label"]: row for row in newest["rows"]}
    kinds = [rows[f"full {kind}"] for kind in ("on", "strength", "other", "off")]
    *switches, off = (round(row["median"] * 1000) for row in kinds)
    words = r"takes (\d+) to (\d+) ms, to take it off (\d+) \(a first time up to (\d+)\)"
    (told,) = re.findall(words, " ".join(TEXT.split()))
    assert [int(ms) for ms in told] == [min(switches), max(switches), off, round(max(row["first_ms"] for row in kinds))]
