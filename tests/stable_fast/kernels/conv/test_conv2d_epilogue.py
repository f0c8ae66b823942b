"""Implementations offered for a shape by the convolution with its epilogue."""

from __future__ import annotations

import torch

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.conv import conv2d_epilogue
from modules.stable_fast.kernels.devices import Card


def test_a_vector_for_each_sample_is_kept_from_cudnn_graphs(monkeypatch):
    monkeypatch.setattr(conv2d_epilogue, "_CUDNN_GRAPHS", {"cudnn_graph_1": None})
    x, weight = torch.empty(2, 64, 64, 64), torch.empty(64, 64, 3, 3)
    picked = []
    monkeypatch.setattr(conv2d_epilogue, "uses_kernels", lambda x: True)
    monkeypatch.setattr(conv2d_epilogue, "run_chosen", lambda op, key, table, *others: picked.append((key, table)))
    for rows in (1, 2):
        conv2d_epilogue._conv2d_epilogue(x, weight, None, torch.empty(rows, 64), None, 1, 1, "none")
    assert ["cudnn_graph_1" in table for _, table in picked] == [True, False]
    assert picked[0][0] != picked[1][0]  # so the two never share a choice


def test_kernels_that_only_hopper_ran_are_offered_on_hopper_only(monkeypatch):
    x, weight = torch.empty(1, 64, 8, 8), torch.empty(64, 64, 3, 3)
    for capability in ((9, 0), (10, 0), (12, 0)):
        monkeypatch.setattr(devices, "card_of", lambda x, capability=capability: Card(capability, 100))
        candidates, _ = conv2d_epilogue.implementations_for(x, weight, 1, 1)
        assert any(name.startswith("tma") for name in candidates) == (capability == (9, 0))


def test_a_kernel_one_pixel_high_is_not_pointwise():
    x = torch.empty(1, 8, 16, 16)
    assert "cublas" in conv2d_epilogue.implementations_for(x, torch.empty(8, 8, 1, 1), 1, 0)[0]
    assert "cublas" not in conv2d_epilogue.implementations_for(x, torch.empty(8, 8, 1, 3), 1, 0)[0]
