"""Which library gets which call of attention on heads, and with what layout of the bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.attention import attention_heads, attention_packed
from modules.stable_fast.kernels.devices import Card

ops = torch.ops.lightdiffusion
HOPPER, ADA = Card((9, 0), 132), Card((8, 9), 128)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that would choose an implementation, as (op, key, chain, args)."""
    calls: list[Any] = []

    def choose(op: str, key: Any, table: Any, chain: Any, args: Any, reference: Any) -> Tensor:
        calls.append((op, key, chain, args))
        return reference()

    for module in (attention_heads, attention_packed):
        monkeypatch.setattr(module, "run_chosen", choose)
    monkeypatch.setattr(devices, "card_of", lambda x: HOPPER)
    return calls


def heads(size: int = 16, keys: int = 9) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, length, 3, size, generator=generator).half().transpose(1, 2) for length in (7, keys, keys)]


def test_a_usual_call_is_chosen_as_packed_attention_is(made: list[Any]) -> None:
    q, k, v = heads(size=128, keys=200)
    y = ops.attention_heads(q, k, v, None, False, 128**-0.5)
    [(op, key, chain, args)] = made
    assert op == "attention_packed" and key == (2, 7, 3, 128, 200, "float16") and chain[0] == "cudnn"
    assert args[0].stride() == q.transpose(1, 2).stride()  # no copy
    torch.testing.assert_close(y, attention_heads.attention_heads_reference(q, k, v, None, False, None))


def test_another_scale_and_a_causal_mask(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ops.attention_heads(*heads(), None, False, 1.0)
    monkeypatch.setattr(devices, "card_of", lambda x: ADA)
    ops.attention_heads(*heads(keys=7), None, True, None)
    assert [call[:3] for call in made] == [
        ("attention_heads", (2, 7, 3, 16, 9, False, False, "float16"), ["cudnn", "flash", "efficient"]),
        ("attention_heads", (2, 7, 3, 16, 7, False, True, "float16"), ["flash", "efficient"]),
    ]


@pytest.mark.parametrize("shape", [(1, 3, 7, 9), (2, 1, 1, 9), (7, 9)], ids=str)
def test_fused_kernels_get_a_bias_that_they_can_read(shape: tuple[int, ...], made: list[Any]) -> None:
    q, k, v = heads()
    bias = torch.randn(*shape[::-1]).half().permute(*range(len(shape) - 1, -1, -1))
    ready = ops.attention_bias(bias)
    assert torch.equal(ready, bias) and ready.data_ptr() != bias.data_ptr()
    for given in (bias, ready):
        ops.attention_heads(q, k, v, given, False, 1.0)
    for op, _, chain, args in made:
        assert op == "attention_heads" and chain == ["efficient", "cudnn"]
        assert args[3].shape == (2, 3, 7, 9) and torch.equal(args[3], bias.expand(2, 3, 7, 9))
        assert args[3].stride(-1) == 1 and all(stride % 8 == 0 for stride in args[3].stride()[:-1])
    assert made[1][3][3].data_ptr() == ready.data_ptr()  # laid out once
