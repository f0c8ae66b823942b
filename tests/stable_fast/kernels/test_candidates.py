"""Which implementations a card is offered, and the order in which they are tried without tuning."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.attention import attention_packed
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.conv import conv2d_cat_epilogue, conv2d_epilogue, upsample_conv2d
from modules.stable_fast.kernels.devices import Card, CardClass
from modules.stable_fast.kernels.linear import linear_epilogue, linear_geglu

LIBRARIES = ("cublas", "cudnn", "flash", "efficient", "xformers")
TABLES = {
    "attention": attention_packed.CANDIDATES,
    "cat": conv2d_cat_epilogue.CANDIDATES,
    "upsample": upsample_conv2d.CANDIDATES,
    "linear": linear_epilogue.CANDIDATES,
    "geglu": linear_geglu.CANDIDATES,
}


def heads(length, size, keys=None):
    q = torch.empty(2, length, 8, size, dtype=torch.float16)
    k = torch.empty(2, keys or length, 8, size, dtype=torch.float16)
    return q, k, k


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_turing_is_offered_libraries_only(table):
    assert table.on(CardClass.TURING)
    assert all(name.startswith(LIBRARIES) for name in table.on(CardClass.TURING))
    for card in (CardClass.MMA, CardClass.TCGEN05):
        others = [name for name in table.on(card) if not name.startswith(LIBRARIES)]
        assert others and not any(name.startswith(("tma", "specialized")) for name in others)


def test_turing_convolves_by_libraries(monkeypatch):
    monkeypatch.setattr(devices, "card_of", lambda x: Card((7, 5), 68))
    for kernel in (1, 3):
        candidates, chain = conv2d_epilogue.implementations_for(
            torch.empty(1, 8, 16, 16), torch.empty(8, 8, kernel, kernel), 1, kernel // 2
        )
        assert all(name.startswith(LIBRARIES) for name in candidates) and chain[0] in candidates


def test_operands_that_do_not_suit_hopper_get_the_plain_tiles():
    table = Candidates({"library": print}, {"tile": print}, {"hopper": print})
    assert set(table.on(CardClass.WGMMA)) == {"library", "hopper"}
    assert set(table.on(CardClass.WGMMA, suits_hopper=False)) == {"library", "tile"}


@pytest.mark.parametrize(
    ("capability", "of_pixels", "of_prompt", "wide"),
    [
        ((7, 5), ["efficient"], ["efficient"], ["efficient"]),
        ((8, 9), ["flash", "triton_128x64"], ["cross_64x1", "flash"], ["flash", "triton_128x64"]),
        ((10, 0), ["cudnn", "flash"], ["cross_64x1", "cudnn"], ["flash", "triton_128x64"]),
    ],
)
def test_attention_without_tuning(capability, of_pixels, of_prompt, wide, monkeypatch):
    monkeypatch.setattr(devices, "card_of", lambda x: Card(capability, 100))
    assert attention_packed._chain(*heads(4096, 40))[:2] == of_pixels
    assert attention_packed._chain(*heads(4096, 40, keys=77))[:2] == of_prompt
    assert attention_packed._chain(*heads(256, 160))[:2] == wide
    assert attention_packed._chain(*heads(64, 44)) == ["efficient"]


def test_without_flash_attention_the_next_of_the_chain_serves(monkeypatch):
    """As in PyTorch for Windows, which is built without it."""
    monkeypatch.setattr(devices, "card_of", lambda x: Card((8, 6), 28))
    chain = attention_packed._chain(*heads(1024, 80))
    assert chain == ["flash", "triton_128x64", "triton_64x64", "efficient"]
