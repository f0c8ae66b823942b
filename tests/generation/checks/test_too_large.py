"""Tests that pictures too large for a CPU are refused, and that the bounds are lower ones (counted, and measured)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modules.core.errors import OptionsError
from modules.generation.checks import too_large
from modules.generation.checks.too_large import check_fits_cpu, least_operations
from modules.generation.options import GenerationOptions, HiresOptions, ResolvedOptions
from modules.loader.checkpoint import LoadedModel, load_checkpoint

CPU = torch.device("cpu")
# Prints the least bytes of two rows at 768 x 768, and by how much the peak of this process rose in one evaluation.
PEAK = r"""
import re, sys, torch
from pathlib import Path
from modules.generation.checks.too_large import least_values
from modules.loader.checkpoint import load_checkpoint
model = load_checkpoint(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32)
unet, config = model.unet.module, model.spec.unet
def evaluate(side):
    with torch.inference_mode():
        unet(torch.zeros(2, 4, side, side), torch.zeros(2), torch.zeros(2, 77, config.context_dim), None, None)
def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
evaluate(8)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts over: to load took more than all that follows
before = peak()
evaluate(96)
print(2 * 4 * least_values(config, 96 * 96), peak() - before)
"""


@pytest.fixture(scope="module")
def demo(demo_checkpoint: Path) -> LoadedModel:
    return load_checkpoint(demo_checkpoint, device=CPU, dtype=torch.float32)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(too_large, "free_memory", lambda _: 16 * too_large.GIB)


def options(side: int = 8192, **others: Any) -> ResolvedOptions:
    return GenerationOptions(prompt="", width=side, height=side, seed=1, **others).resolved(512)


def test_a_day_of_work_is_refused_with_a_remedy(demo: LoadedModel) -> None:
    with pytest.raises(OptionsError, match=r"^A picture of 8192x8192 would take .* hours, .*--tiled-upscale\)\.$"):
        check_fits_cpu(options(), demo.spec, CPU, torch.float32)


def test_more_memory_than_there_is_is_refused_with_both_numbers(demo: LoadedModel) -> None:
    with pytest.raises(OptionsError, match=r"at least 32\.0 GiB of memory on this CPU, and 16\.0 GiB are free"):
        check_fits_cpu(options(batch=4), demo.spec, CPU, torch.float32)


def test_the_second_pass_counts_as_well(demo: LoadedModel) -> None:
    large = options(512, hires=HiresOptions(width=8192, height=8192, denoise=1.0))
    with pytest.raises(OptionsError, match="8192x8192"):
        check_fits_cpu(large, demo.spec, CPU, torch.float32)


@pytest.mark.parametrize(
    ("asked", "device"),
    [(options(4096), CPU), (options(steps=5, cfg=1.0), CPU), (options(), torch.device("cuda"))],
)
def test_what_may_work_is_not_refused(demo: LoadedModel, asked: ResolvedOptions, device: torch.device) -> None:
    check_fits_cpu(asked, demo.spec, device, torch.float32)


def test_the_work_is_that_of_self_attention(demo: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config, counted = demo.spec.unet, [0]
    attend = F.scaled_dot_product_attention

    def count(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **settings: Any) -> torch.Tensor:
        rows, heads, length, width = q.shape
        if k.shape[2] == length:  # the text has 77 tokens
            counted[0] += 4 * rows * heads * length * length * width
        return attend(q, k, v, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    with torch.inference_mode():
        demo.unet.module(torch.zeros(1, 4, 32, 32), torch.zeros(1), torch.zeros(1, 77, config.context_dim), None, None)
    # The middle is left out, and it has an eighth of the cells.
    assert 0.99 * counted[0] < least_operations(config, 32 * 32) <= counted[0]
    assert least_operations(replace(config, depths=(0, 0, 0, 0)), 32 * 32) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a part of a run")
def test_the_memory_is_less_than_what_it_takes(demo_checkpoint: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, str(demo_checkpoint)], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    least, taken = map(int, ran.stdout.split())
    assert 0.2 * taken < least <= taken
