"""The precision of fused products: where it holds, and where it is told to have no effect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from modules.generation.option_table import STABLE_FAST_PRECISIONS
from modules.stable_fast import StableFastConfig, compile_module
from modules.stable_fast.kernels.accumulation import sums_in_half
from modules.stable_fast.kernels.devices import Card
from modules.stable_fast.kernels.linear import linear_epilogue
from modules.stable_fast.precision import PRECISIONS, eight_bits_in_force, why_no_effect

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
HALF = nn.Linear(2, 2).half()

pytestmark = pytest.mark.own_cache


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each linear layer that ran might sum in fp16."""
    seen: list[bool] = []

    def note(x: Tensor) -> bool:
        seen.append(sums_in_half(x.half()))
        return False

    monkeypatch.setattr(linear_epilogue, "uses_kernels", note)
    yield seen


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8)).eval()


def test_names_are_those_of_the_option() -> None:
    assert PRECISIONS == STABLE_FAST_PRECISIONS
    with pytest.raises(ValueError, match="precision 'fp4' is not one of off, fp16-accumulate"):
        StableFastConfig(precision="fp4")


def test_fused_products_may_be_summed_in_fp16(sums: list[bool]) -> None:
    x = torch.randn(2, 8)
    for precision, expected in (("off", False), ("fp16-accumulate", True), ("off", False)):
        sums.clear()
        compiled = compile_module(network(), [x], precision=precision)  # the last two read the first one's graph
        compiled(x)
        assert set(sums) == {expected} and not sums_in_half(x.half())


def test_the_status_line_tells_what_holds() -> None:
    x, reports = torch.randn(2, 8), {}
    for level, precision in (("full", "off"), ("full", "fp16-accumulate"), ("graph", "fp16-accumulate")):
        compiled = compile_module(network(), [x], level=level, precision=precision)
        compiled(x)
        reports[level, precision] = compiled.report.status_line()
    assert "fp16" not in reports["full", "off"]
    assert "fp16-accumulate has no effect (it needs an NVIDIA GPU)" in reports["full", "fp16-accumulate"]
    assert "fp16-accumulate has no effect (level off has no fused" in reports["graph", "fp16-accumulate"]


@pytest.mark.parametrize(
    ("name", "capability", "module", "reason"),
    [
        ("NVIDIA GeForce RTX 4090", (8, 9), HALF, ""),
        ("NVIDIA GeForce RTX 2080 Ti", (7, 5), HALF, ""),
        ("NVIDIA GeForce GTX 1660 SUPER", (7, 5), HALF, "NVIDIA GeForce GTX 1660 SUPER has no tensor cores"),
        ("NVIDIA GeForce GTX 1080", (6, 1), HALF, "NVIDIA GeForce GTX 1080 has no tensor cores"),
        ("NVIDIA GeForce RTX 4090", (8, 9), nn.Linear(2, 2), "the network does not compute in fp16"),
    ],
)
def test_cards_on_which_it_has_an_effect(
    name: str, capability: tuple[int, int], module: nn.Module, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr("modules.stable_fast.precision.card_at", lambda number: Card(capability, 40))
    assert why_no_effect("fp16-accumulate", GPU, module) == reason
    assert why_no_effect("off", GPU, module) == ""
    assert why_no_effect("fp16-accumulate", CPU, module) == "it needs an NVIDIA GPU"


@pytest.mark.parametrize(
    ("precision", "capability", "module", "reason"),
    [
        ("fp8", (8, 9), HALF, ""),
        ("fp8", (12, 0), nn.Linear(2, 2).bfloat16(), ""),
        ("fp8", (10, 0), HALF, ""),
        ("fp8", (8, 6), HALF, "the card has no products in fp8: RTX 40, RTX 50, H100 and newer have"),
        ("int8", (8, 0), HALF, ""),
        ("int8", (9, 0), HALF, ""),
        ("int8", (7, 5), HALF, "the card has no fast products in int8: RTX 30, 40 and 50, A100 and H100 have"),
        ("int8", (10, 0), HALF, "the card has no fast products in int8: RTX 30, 40 and 50, A100 and H100 have"),
        ("int8", (9, 0), nn.Linear(2, 2), "the network computes in float32"),
        ("int8-weights", (7, 5), nn.Linear(2, 2), ""),
        ("fp8-weights", (7, 5), HALF, ""),
    ],
)
def test_cards_with_eight_bits(
    precision: str,
    capability: tuple[int, int],
    module: nn.Module,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "the card")
    monkeypatch.setattr("modules.stable_fast.precision.card_at", lambda number: Card(capability, 40))
    found, told = eight_bits_in_force(StableFastConfig(precision=precision), GPU, module)
    assert told == reason and (found is None) == bool(reason) and len(caplog.messages) == bool(reason)


def test_on_a_cpu_eight_bits_hold_only_if_emulated() -> None:
    for precision, reason in (
        ("int8", "it needs an NVIDIA GPU"),
        ("fp8-weights", "it saves the memory of an NVIDIA GPU"),
    ):
        assert eight_bits_in_force(StableFastConfig(precision=precision), CPU, HALF) == (None, reason)
        found, told = eight_bits_in_force(StableFastConfig(precision=precision, emulated=True), CPU, HALF)
        assert found is not None and found.name == precision and not told
    assert eight_bits_in_force(StableFastConfig(precision="off", emulated=True), CPU, HALF) == (None, "")
