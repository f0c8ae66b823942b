"""What a card runs, by its compute capability."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.devices import Card, CardClass


@pytest.mark.parametrize(
    ("capability", "kind"),
    [
        ((7, 5), CardClass.TURING),
        ((8, 0), CardClass.MMA),
        ((8, 9), CardClass.MMA),
        ((9, 0), CardClass.WGMMA),
        ((10, 0), CardClass.TCGEN05),
        ((10, 3), CardClass.TCGEN05),
        ((12, 0), CardClass.MMA),
    ],
)
def test_each_generation_has_its_class(capability, kind):
    assert Card(capability, 1).kind is kind


@pytest.mark.parametrize(
    ("capability", "half", "bfloat", "overlap"),
    [
        ((7, 0), False, False, False),
        ((7, 5), True, False, False),
        ((8, 6), True, True, False),
        ((9, 0), True, True, True),
    ],
)
def test_what_a_card_runs(capability, half, bfloat, overlap, monkeypatch):
    monkeypatch.setattr(devices, "card_of", lambda x: Card(capability, 40))
    monkeypatch.setattr(devices, "HAS_TRITON", True)
    x = torch.empty(4, dtype=torch.float16)
    assert devices.uses_kernels(x) == half and devices.uses_kernels(x.bfloat16()) == bfloat
    assert not devices.uses_kernels(x.float()) and not devices.uses_kernels(x[:0])
    assert devices.overlaps_launches(x) == overlap and devices.multiprocessors(x) == 40


def test_a_card_is_found_by_the_name_of_its_chip():
    for card in (Card((8, 9), 128), Card((12, 0), 170)):
        assert devices.card_named(card.chip) == card
    assert Card((9, 0), 132).chip == "sm90-132"
    assert devices.card_named("class-mma") is None and devices.card_named("gfx1100") is None


def test_without_a_card_plain_pytorch_runs():
    x = torch.empty(4, dtype=torch.float16)
    assert devices.card_of(x) is None and not devices.uses_kernels(x) and not devices.is_hopper(x)
