"""Projections of one vector become one product, and those that are large, or of many rows, stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, packed_qkv
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

PASSES = [cleanup.PASS, packed_qkv.VECTOR_PASS]


class Blocks(nn.Module):
    """A vector's projections, of different widths, in three blocks."""

    def __init__(self, *, last_bias: bool = True) -> None:
        super().__init__()
        self.projections = nn.ModuleList([nn.Linear(8, 12), nn.Linear(8, 6), nn.Linear(8, 12, bias=last_bias)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = torch.sin(x)
        return tuple(torch.cos(projection(x)) for projection in self.projections)


def test_one_product_has_all_projections() -> None:
    found, report = fuse(Blocks(), [random(2, 8)], PASSES)
    assert report.matches["packed_vector"] == {"vector": 1}
    assert found["linear"] == 1 and found["split_with_sizes"] == 1


def test_a_projection_without_bias_stays_by_itself() -> None:
    found, report = fuse(Blocks(last_bias=False), [random(2, 8)], PASSES)
    assert report.matches["packed_vector"] == {"vector": 1} and found["linear"] == 2


@pytest.mark.parametrize("x", [random(2, 7, 8), random(packed_qkv.MOST_ROWS + 1, 8)], ids=["tokens", "many rows"])
def test_other_inputs_keep_their_projections(x: Tensor) -> None:
    assert fuse(Blocks(), [x], PASSES)[0]["linear"] == 3


def test_large_projections_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_qkv, "LARGEST_BYTES", 8 * 6 * 4)
    assert fuse(Blocks(), [random(2, 8)], PASSES)[0]["linear"] == 3
