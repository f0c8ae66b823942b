"""Both ways to multiply two inputs by one weight agree, and which of them is the default."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.devices import Card
from modules.stable_fast.kernels.linear import linear_cat
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_two_products_into_one_result(dtype, biased):
    make = Maker("cpu", dtype)
    a, b, weight = make.rows(2, 5, 24)[..., :8], make.rows(2, 5, 13), make.rows(7, 21, scale=0.2)
    bias = make.rows(7) if biased else None
    y = linear_cat.two_products(a, b, weight, bias)
    assert_near(y, linear_cat.linear_cat_reference(*doubled(a, b, weight, bias)), slack=2)


@pytest.mark.parametrize(("rows", "first"), [(2048, "two_products"), (77, "cublas_of_copy")])
def test_few_rows_are_joined(rows, first, monkeypatch):
    chains = []
    monkeypatch.setattr(devices, "card_of", lambda x: Card((9, 0), 132))
    monkeypatch.setattr(
        linear_cat, "run_chosen", lambda op, key, table, chain, args, reference: chains.append(chain) or reference()
    )
    make = Maker("cpu", torch.float16)
    torch.ops.lightdiffusion.linear_cat(make.rows(1, rows, 8), make.rows(1, rows, 8), make.rows(4, 16), None)
    assert chains == [(first,)]
