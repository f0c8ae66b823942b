"""Every kernel that a card may be given compiles for it, fits it, and multiplies matrices by its matrix unit."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from modules.stable_fast.kernels.accumulation import summing_in_half
from modules.stable_fast.kernels.devices import CardClass, serves
from modules.stable_fast.kernels.scaled.kinds import LARGEST
from modules.stable_fast.kernels.triton_import import HAS_TRITON, INTERPRETED

if INTERPRETED or not HAS_TRITON:
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from tests.stable_fast.compile_matrix.cards import CARDS, AbsentCard
from tests.stable_fast.compile_matrix.compiling import Compiled, compiled_for
from tests.stable_fast.compile_matrix.workload import (
    Workload,
    calls_in_eight_bits,
    calls_of_a_step,
    calls_of_a_transformer,
)

MOST_SPILLED = 16  # bytes a thread
MOST_SPILLED_BY_HALF_SUMS = 32  # a tile's own sums take registers besides the total
UNIT = {CardClass.MMA: "mma.sync", CardClass.WGMMA: "wgmma.mma_async", CardClass.TCGEN05: "tcgen05.mma"}
DEFAULTS = (Workload("SD1.5", 512), Workload("SDXL", 1024))
WORKLOADS = (*DEFAULTS, Workload("SD1.5", 1024), Workload("SD2.1", 768))
on_cards = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)


# What may spill more, and why: by card and label.
SPILLS = {
    ("H200", "cross_64x1"): 32,  # heads of 160: the fastest we measured there, by another compiler that spills nothing
    # In e4m3 or int8. In int8, each was the fastest at some size that we measured there.
    ("H200", "tma_128x256x128"): 152,
    ("H200", "tma_128x160x128"): 496,
    ("H200", "tma_128x128x128"): 216,
    # Of a convolution after upsampling, where it is no default.
    ("A100", "triton_128x64x128"): 32,
    ("RTX 3060", "triton_128x64x128"): 32,
    ("RTX 4090", "triton_128x64x128"): 32,
    ("B200", "one_kernel"): 24,  # beside two_kernels, for one size: no default
}


def faults(found: list[Compiled], card: AbsentCard, most_spilled: int = MOST_SPILLED) -> list[str]:
    said = []
    for each in found:
        if each.error:
            said.append(f"{each.label} does not compile: {each.error}")
        if each.shared > card.shared:
            said.append(f"{each.label} needs {each.shared} bytes of {card.shared}")
        if each.spilled > SPILLS.get((card.name, each.implementation), most_spilled):
            said.append(f"{each.label} spills {each.spilled} bytes")
        if each.has_dot and UNIT.get(card.card.kind) not in each.products:
            said.append(f"{each.label} multiplies by {', '.join(each.products) or 'plain multiply-adds'}")
    return said


@on_cards
def test_default_choices(card: AbsentCard) -> None:
    calls = chain(*map(calls_of_a_step, DEFAULTS), calls_of_a_transformer(4608, 3072))
    found = compiled_for(card, calls, torch.float16)
    assert len(found) > 30 and faults(found, card) == []
    assert any(each.has_dot for each in found) == (card.card.kind is not CardClass.TURING)


@pytest.mark.parametrize("kind", LARGEST, ids=str)
def test_what_reads_and_writes_eight_bits(kind: torch.dtype) -> None:
    calls = {call.op: call for call in calls_in_eight_bits(kind) if "linear" not in call.op and "conv" not in call.op}
    found = compiled_for(CARDS["RTX 4090"], calls.values(), None)
    assert {each.op for each in found} == set(calls)
    assert faults(found, CARDS["RTX 4090"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGEST, ids=str)
@on_cards
def test_all_candidates_in_eight_bits(card: AbsentCard, kind: torch.dtype) -> None:
    found = compiled_for(card, calls_in_eight_bits(kind), None, all_candidates=True)
    assert faults(found, card) == []
    multiplied = {each.op for each in found if each.has_dot}
    assert len(multiplied) == (5 if serves(card.card, kind) else 0)


@pytest.mark.slow
@pytest.mark.parametrize("work", DEFAULTS, ids=lambda work: f"{work.model}-{work.size}")
@pytest.mark.parametrize("card", [card for card in CARDS.values() if card.card.kind is CardClass.MMA], ids=str)
def test_all_candidates_that_sum_in_fp16(card: AbsentCard, work: Workload) -> None:
    with summing_in_half(allowed=True):
        found = compiled_for(card, calls_of_a_step(work), torch.float16, all_candidates=True)
    assert faults(found, card, MOST_SPILLED_BY_HALF_SUMS) == []
    summing = {each.op for each in found if each.sums_in_half}
    assert summing == {each.op for each in found if each.has_dot} - {"attention_packed_qkv", "attention_packed_kv"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("work", WORKLOADS, ids=lambda work: f"{work.model}-{work.size}")
@on_cards
def test_all_candidates(card: AbsentCard, work: Workload, dtype: torch.dtype) -> None:
    found = compiled_for(card, calls_of_a_step(work), dtype, all_candidates=True)
    if dtype is torch.bfloat16 and card.card.kind is CardClass.TURING:
        assert found == []  # Turing has no bfloat16
    assert faults(found, card) == []
