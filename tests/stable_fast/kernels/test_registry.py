"""Running the chosen implementation of an op: after a refusal, and on the right device."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from modules.stable_fast.kernels import registry
from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.kernels.refusals import Unsupported, unsupported_on_error
from modules.stable_fast.kernels.registry import run_chosen
from modules.stable_fast.kernels.triton_import import TritonError
from tests.stable_fast.kernels.stand_ins import refusing


@pytest.mark.parametrize("error", [
    Unsupported("no such shape"), TritonError("too little shared memory"), RuntimeError("PassManager::run failed"),
    PermissionError("the folder of compiled kernels"),
], ids=repr)  # fmt: skip
def test_what_refuses_is_replaced_and_not_asked_again(error, caplog):
    choices = ImplementationChoices()
    choices.chosen["op", (1,)] = "shipped"
    shipped, default = refusing(error), refusing(error)
    table = {"shipped": shipped, "default": lambda x: x + 1}
    call = ("op", (1,), table, ("default",), (1,), lambda: 7, choices)
    assert [run_chosen(*call) for _ in range(3)] == [2, 2, 2]
    assert shipped.calls == 1 and choices.used == {("op", (1,)): "default"}
    assert "op runs without shipped" in caplog.text and len(caplog.records) == 1

    table["default"] = default
    choices.refused.clear()
    assert [run_chosen(*call) for _ in range(3)] == [
        7,
        7,
        7,
    ]  # plain PyTorch runs a call that all others refuse
    assert default.calls == 1 and choices.used == {("op", (1,)): "reference"}


def test_the_next_of_the_chain_serves_what_the_first_refuses():
    """As on Windows, where PyTorch is built without flash attention."""
    choices, flash = ImplementationChoices(), refusing(Unsupported("not built in"))
    table = {"flash": flash, "efficient": lambda x: x + 1}
    call = ("op", (1,), table, ("flash", "not here", "efficient"), (1,), lambda: 7, choices)
    assert [run_chosen(*call) for _ in range(3)] == [2, 2, 2]
    assert flash.calls == 1 and choices.used == {("op", (1,)): "efficient"}


def test_a_choice_read_again_from_disk_is_not_asked_again():
    choices = ImplementationChoices()
    table = {"shipped": refusing(Unsupported("no")), "default": lambda: 1}
    for _ in range(2):
        choices.chosen["op", (1,)] = "shipped"  # load_choices does this before each new shape
        assert run_chosen("op", (1,), table, ("default",), (), lambda: 7, choices) == 1
    assert table["shipped"].calls == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), torch.AcceleratorError("broken"), ValueError("bug")])
def test_what_is_no_refusal_is_passed_on(error):
    with pytest.raises(type(error)):
        run_chosen("op", (1,), {"a": refusing(error)}, ("a",), (), lambda: 7, ImplementationChoices())


@pytest.mark.parametrize("error", [Unsupported("no such shape"), RuntimeError("err 716 != CUDA_SUCCESS")], ids=repr)
def test_a_refusal_of_a_gpu_that_broke_down_is_no_refusal(error, monkeypatch):
    """After a fault in a kernel, every library fails with its own message."""

    def broken():
        raise torch.AcceleratorError("CUDA error: misaligned address")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(torch.AcceleratorError, match="misaligned"):
        run_chosen("op", (1,), {"a": refusing(error)}, ("a",), (), lambda: 7, ImplementationChoices())
    with pytest.raises(torch.AcceleratorError, match="misaligned"):
        with unsupported_on_error("cuDNN"):
            raise RuntimeError("err 716 != CUDA_SUCCESS")


def test_ops_run_on_the_device_of_their_operand(monkeypatch):
    """With `--device cuda:1`, nothing else makes that device current."""
    current = [0]

    @contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", device)
    op = registry.on_its_device(lambda x, more: (current[-1], more))
    for is_cuda, index, expected in ((True, 1, 1), (True, 0, 0), (False, None, 0)):
        x = SimpleNamespace(is_cuda=is_cuda, device=SimpleNamespace(index=index))
        assert op(x, "more") == (expected, "more") and current == [0]
