"""Checksums by PyTorch, where no kernel reads the tensors: any other contents are another sum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.stable_fast.changes import checksums
from modules.stable_fast.changes.checksums import Checksums, finish
from tests.stable_fast.networks import random


def sums(**tensors: Tensor) -> dict[str, int]:
    found = Checksums(tensors)
    return dict(zip(found.names, finish(found.start()), strict=True))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.uint8, torch.bool]
)
def test_one_other_element_is_another_sum(dtype: torch.dtype) -> None:
    x, y = torch.zeros(65, 33, dtype=dtype), torch.zeros((), dtype=dtype)
    before = sums(x=x, y=y)
    x[64, 32] = 1
    after = sums(x=x, y=y)
    assert before["x"] != after["x"] and before["y"] == after["y"]


@pytest.mark.parametrize("shape", [(8, 8), (64, 1024), (640, 320)])
def test_other_places_and_signs_are_other_sums(shape: tuple[int, int]) -> None:
    x = random(*shape)
    found = [sums(x=each)["x"] for each in (x, x.flip(0), x.flip(1), -x, x.roll(1, 0))]
    assert len(set(found)) == len(found)


def test_no_tensors_have_no_sums() -> None:
    assert sums() == {}


def test_pytorch_reads_what_the_kernel_fails_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError("no C compiler")

    tensors = {"x": random(4, 4), "y": random(4)}
    expected = sums(**tensors)
    monkeypatch.setattr(checksums, "can_read", lambda tensor: tensor.dim() == 2)
    monkeypatch.setattr(checksums, "launch_checksums", fails)
    assert sums(**tensors) == expected and "no C compiler" in caplog.text
