"""Devices and dtypes by name, and correct memory figures."""

from __future__ import annotations

import pytest
import torch

from modules.core.device import (
    choose_device,
    choose_dtype,
    free_memory,
    has_bfloat16,
    memory_report,
    release_memory,
    sent,
)
from modules.core.errors import OptionsError

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize("name", [None, "", "auto", "cpu", " CPU "])
def test_without_a_gpu_the_cpu_is_taken(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    without_gpu(monkeypatch)
    assert choose_device(name) == CPU


def test_the_fastest_device_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == choose_device("mps") == torch.device("mps")
    with_gpus(monkeypatch, 2)
    assert choose_device() == CUDA
    assert choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "tpu", "meta"])
def test_unknown_devices_are_explained(name: str) -> None:
    with pytest.raises(OptionsError, match="Unknown device .*choose cuda"):
        choose_device(name)


def test_devices_that_are_not_there_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    for name in ("cuda", "cuda:3", "mps"):
        with pytest.raises(OptionsError, match="is not available .*use --device cpu"):
            choose_device(name)
    with_gpus(monkeypatch, 2)
    with pytest.raises(OptionsError, match="no device cuda:2; this machine has cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_default_number_types() -> None:
    assert choose_dtype(CPU) == torch.float32
    assert choose_dtype(CUDA, "auto") == torch.float16
    assert choose_dtype(torch.device("mps")) == torch.float16


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("FLOAT32", torch.float32)]
)
def test_number_types_by_name(name: str, dtype: torch.dtype) -> None:
    assert choose_dtype(CPU, name) == dtype


def test_number_types_that_do_not_fit_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError, match='"int8"; choose float16'):
        choose_dtype(CPU, "int8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(OptionsError, match="Old GPU does not support bfloat16"):
        choose_dtype(CUDA, "bf16")


def test_memory_figures_follow_an_allocation() -> None:
    before = memory_report()
    block = torch.ones(64, 1024, 1024 // 4)  # 64 MiB
    after = memory_report(CPU)
    assert after.resident - before.resident > 48 * 2**20
    assert after.resident_peak >= after.resident
    assert after.device_allocated is None and "GPU" not in str(after)
    assert free_memory(CPU) > 2**20
    del block


@pytest.mark.parametrize(
    ("fraction", "free"),
    [(1.0, 3 + 2), (0.6, 6 - 4), (0.4, 0)],  # what the system has free and torch reserves unused; what is allowed
)
def test_a_limit_for_the_process_holds_for_free_memory(
    monkeypatch: pytest.MonkeyPatch, fraction: float, free: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    # As torch does, this takes a number and no "cuda" without one.
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", {1: fraction}.__getitem__)
    assert free_memory(torch.device("cuda")) == free_memory(torch.device("cuda:1")) == free


def test_only_newer_nvidia_gpus_have_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, has in (((8, 0), True), ((7, 5), False), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert has_bfloat16(CUDA) == has
    assert not has_bfloat16(CPU)


@pytest.mark.gpu
def test_gpu_memory_figures_follow_an_allocation() -> None:
    device = choose_device("cuda")
    free, before = free_memory(device), memory_report(device)
    block = torch.ones(64, 1024, 1024 // 4, device=device)
    after = memory_report(device)
    assert after.device_allocated is not None and before.device_allocated is not None
    assert after.device_allocated - before.device_allocated == 64 * 2**20
    assert 48 * 2**20 < free - free_memory(device) < 256 * 2**20
    del block
    assert free - free_memory(device) < 16 * 2**20  # torch's reserved memory counts as free
    release_memory(device)
    assert "GPU" in str(after)


def test_only_what_is_pinned_is_sent_without_waiting() -> None:
    """A copy that does not wait, from memory that the system may move, would read what comes later."""
    calls: list[object] = []

    class Recorded:
        device = CPU

        def pin_memory(self) -> Recorded:
            calls.append("pinned")
            return self

        def to(self, device: torch.device, **how: bool) -> Recorded:
            calls.append((device.type, how))
            return self

    for device in (CUDA, torch.device("mps"), CPU):
        sent(Recorded(), device)  # type: ignore[arg-type]
    assert calls == ["pinned", ("cuda", {"non_blocking": True}), ("mps", {}), ("cpu", {})]
