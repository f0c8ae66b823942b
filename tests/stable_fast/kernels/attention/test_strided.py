"""The Triton attention kernel against float64, on strided views of packed projections."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.attention import strided
from modules.stable_fast.kernels.attention.attention_packed import (
    attention_packed_kv_reference,
    attention_packed_qkv_reference,
)
from modules.stable_fast.kernels.attention.cross import CrossTile, launch_cross
from modules.stable_fast.kernels.attention.strided import AttentionTile, launch_attention, split_head, split_values
from modules.stable_fast.kernels.devices import CardClass
from modules.stable_fast.kernels.refusals import Unsupported
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, in_product_dtypes, on_devices

TILE = AttentionTile(32, 32, 4, 2)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("heads,size,length", [(2, 40, 64), (1, 80, 96), (1, 160, 32), (2, 64, 160), (3, 8, 32)])
def test_self_attention(heads, size, length, dtype, device):
    qkv = Maker(device, dtype).rows(2, length, 3 * heads * size)
    y = launch_attention(*qkv.unflatten(-1, (3, heads, size)).unbind(2), TILE)
    assert_near(y, attention_packed_qkv_reference(qkv.double(), heads, False), slack=2)


@on_devices
@in_product_dtypes
def test_more_keys_than_queries(dtype, device):
    make = Maker(device, dtype)
    q, kv = make.rows(2, 20, 80), make.rows(2, 96, 160)
    y = launch_attention(q.unflatten(-1, (2, 40)), *kv.unflatten(-1, (2, 2, 40)).unbind(2), TILE)
    assert_near(y, attention_packed_kv_reference(q.double(), kv.double(), 2, False), slack=2)


@on_devices
def test_a_last_block_that_is_not_whole_is_refused(device):
    q = torch.zeros(1, 4, 1, 64, device=device)
    with pytest.raises(Unsupported, match="33 keys"):
        launch_attention(q, *[torch.zeros(1, 33, 1, 64, device=device)] * 2, TILE)


@on_devices
def test_more_heads_than_a_launch_can_number_are_refused(device):
    """Temporal attention puts each pixel into the batch: 8192 x 8 heads."""
    q = torch.zeros(1, 1, 8, 16, device=device).expand(8192, 32, 8, 16)
    for attend in (lambda: launch_cross(q, q, q, CrossTile(16, 1, 4)), lambda: launch_attention(q, q, q, TILE)):
        with pytest.raises(Unsupported, match="8192 x 8 heads"):
            attend()


@on_devices
def test_large_scores_do_not_overflow(device):
    qkv = Maker(device, torch.float16).rows(1, 32, 3 * 40, scale=30.0)  # scores in the tens of thousands
    y = launch_attention(*qkv.unflatten(-1, (3, 1, 40)).unbind(2), TILE)
    assert torch.isfinite(y).all()
    assert_near(y, attention_packed_qkv_reference(qkv.double(), 1, False), slack=4)


def test_values_are_cut_where_the_matrix_unit_goes_by_eight_columns():
    assert [split_values(size, CardClass.MMA) for size in (40, 64, 80)] == [(32, 16), (64, 0), (64, 16)]
    assert [split_values(size, CardClass.WGMMA) for size in (40, 64, 80)] == [(64, 0), (64, 0), (64, 16)]


@on_devices
def test_values_in_one_part_give_the_same(device, monkeypatch):
    qkv = Maker(device, torch.float32).rows(1, 64, 3 * 2 * 40)
    heads = qkv.unflatten(-1, (3, 2, 40)).unbind(2)
    in_two = launch_attention(*heads, TILE)
    monkeypatch.setattr(strided, "card_class", lambda x: CardClass.TCGEN05)
    assert_near(launch_attention(*heads, TILE), in_two.double())


def test_heads_are_cut_where_it_saves_padding():
    assert [split_head(size) for size in (40, 80, 160, 64, 8, 48)] == [
        (32, 16), (64, 16), (128, 32), (64, 0), (16, 0), (32, 16)
    ]  # fmt: skip


@on_devices
def test_a_head_that_does_not_fit_is_refused(device):
    q = torch.zeros(1, 4, 1, 512, device=device)
    with pytest.raises(Unsupported, match="512"):
        launch_attention(q, q, q, TILE)
