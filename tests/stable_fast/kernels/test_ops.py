"""The registered operators: fakes, strides, references against plain PyTorch, and the choice of implementation."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.doctor import self_test
from modules.stable_fast.kernels import dispatch
from modules.stable_fast.kernels.conv import conv2d_epilogue
from modules.stable_fast.kernels.conv.upsample_conv2d import prepare_subpixel_weight
from modules.stable_fast.kernels.dispatch import (
    Choices,
    Unsupported,
    require_32_bit,
    run,
    unsupported_on_error,
)
from modules.stable_fast.kernels.linear import linear_epilogue, linear_geglu
from modules.stable_fast.kernels.norm import layer_norm
from modules.stable_fast.kernels.triton_import import TritonError
from tests.stable_fast.kernels.kernel_device import Maker, assert_near

CPU = torch.device("cpu")
CASES = {case.op: case for case in self_test.cases(CPU, torch.float32)}
OPS = sorted(CASES)


def test_every_op_has_a_self_test():
    registered = {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names()
                  if name.startswith("lightdiffusion::")}  # fmt: skip
    assert registered - {"prepare_subpixel_weight"} == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_fake_and_real_agree(op):
    """Shapes, strides and types under a fake tensor mode, and a schema that tells the truth about aliasing."""
    operator = getattr(torch.ops.lightdiffusion, op).default
    torch.library.opcheck(operator, CASES[op].args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_references_agree_with_float64(op, dtype):
    checks = [c for case in self_test.cases(CPU, dtype) if case.op == op for c in self_test.check(case)]
    assert checks and [c for c in checks if not c.passed] == []
    assert {c.implementation for c in checks} == {"chosen"}  # nothing but the reference runs on a CPU


def test_a_wrong_result_fails_the_self_test():
    case = CASES["linear_geglu"]
    wrong = self_test.Case(case.op, lambda *args: case.reference(*args) * 1.01, case.args)
    assert [c.passed for c in self_test.check(wrong)] == [False]


def test_a_fault_ends_the_self_test_with_the_one_to_blame(monkeypatch):
    def faults(*args):
        raise torch.AcceleratorError("CUDA error: misaligned address")

    later = refusing(torch.AcceleratorError("CUDA error: misaligned address"))
    table = {"good": lambda x, weight, bias, eps: layer_norm.layer_norm_reference(x, weight, bias, eps)}
    monkeypatch.setattr(layer_norm, "_NORM", table | {"bad": faults, "later": later})
    monkeypatch.setattr(layer_norm, "_fits", lambda x: True)
    checks = self_test.check_all(CPU, torch.float32)
    found = [(c.implementation, c.fault, c.passed) for c in checks if c.op == "layer_norm"]
    assert found == [("good", "", True), ("bad", "CUDA error: misaligned address", False)]
    assert checks[-1].op == "layer_norm" and later.calls == 0


def test_ahead_of_the_self_test_only_our_own_kernels_are_launched():
    """Libraries would run, and a fault there could not be told from another's."""
    launched = []
    table = {"cudnn_graph_1": lambda *args: pytest.fail("ran"), "cublaslt_2": lambda *args: pytest.fail("ran")}
    table |= {"tma_64x128": refusing(Unsupported("no TMA")), "triton_64x64x64": launched.append}
    assert self_test._launch_all("op", (1,), table, "cudnn_graph_1", (7,)) == "cudnn_graph_1"
    assert launched == [7]


def test_subpixel_upsampling_equals_upsample_then_convolve():
    make = Maker("cpu", torch.float64)
    x, weight, bias = make.image(2, 6, 5, 7), make.image(4, 6, 3, 3), make.rows(4)
    y = torch.ops.lightdiffusion.upsample_conv2d(x, prepare_subpixel_weight(weight), bias)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)  # weights are summed in fp32


def test_ops_survive_export():
    class Block(torch.nn.Module):
        def forward(self, x, weight, gamma, beta):
            h = torch.ops.lightdiffusion.group_norm_silu(x, gamma, beta, 4, 1e-5, True)
            return torch.ops.lightdiffusion.conv2d_epilogue(h, weight, None, None, x, 1, 1, "none")

    make = Maker("cpu", torch.float32)
    args = (make.image(2, 8, 6, 6), make.image(8, 8, 3, 3), make.rows(8), make.rows(8))
    program = torch.export.export(Block(), args, strict=False)
    targets = [str(node.target) for node in program.graph.nodes if "lightdiffusion" in str(node.target)]
    assert targets == ["lightdiffusion.group_norm_silu.default", "lightdiffusion.conv2d_epilogue.default"]
    assert_near(program.module()(*args), Block()(*args).double())


def test_a_choice_made_once_is_used_again():
    choices, calls = Choices(), []
    choices.tuner = lambda op, key, implementations, default, args: calls.append(key) or "fast"
    table = {"slow": None, "fast": None}
    assert [choices.pick("op", (1,), table, "slow", ()) for _ in range(3)] == ["fast"] * 3
    assert calls == [(1,)]


def test_an_unknown_choice_falls_back_to_the_default():
    choices = Choices()
    choices.chosen["op", (1,)] = "from an older version"
    assert choices.pick("op", (1,), {"slow": None}, "slow", ()) == "slow"


def refusing(error):
    def implementation(*args):
        implementation.calls += 1
        raise error

    implementation.calls = 0
    return implementation


@pytest.mark.parametrize("error", [
    Unsupported("no such shape"), TritonError("too little shared memory"), RuntimeError("PassManager::run failed"),
    PermissionError("the folder of compiled kernels"),
], ids=repr)  # fmt: skip
def test_what_refuses_is_replaced_and_not_asked_again(error, caplog):
    choices = Choices()
    choices.chosen["op", (1,)] = "shipped"
    shipped, default = refusing(error), refusing(error)
    table = {"shipped": shipped, "default": lambda x: x + 1}
    call = ("op", (1,), table, "default", (1,), lambda: 7, choices)
    assert [run(*call) for _ in range(3)] == [2, 2, 2]
    assert shipped.calls == 1 and choices.used == {("op", (1,)): "default"}
    assert "op runs without shipped" in caplog.text and len(caplog.records) == 1

    table["default"] = default
    choices.refused.clear()
    assert [run(*call) for _ in range(3)] == [7, 7, 7]  # plain PyTorch serves what all else refuses
    assert default.calls == 1 and choices.used == {("op", (1,)): "reference"}


def test_a_choice_read_again_from_disk_is_not_asked_again():
    choices = Choices()
    table = {"shipped": refusing(Unsupported("no")), "default": lambda: 1}
    for _ in range(2):
        choices.chosen["op", (1,)] = "shipped"  # what load_choices does before each new shape
        assert run("op", (1,), table, "default", (), lambda: 7, choices) == 1
    assert table["shipped"].calls == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), torch.AcceleratorError("broken"), ValueError("bug")])
def test_what_is_no_refusal_is_passed_on(error):
    with pytest.raises(type(error)):
        run("op", (1,), {"a": refusing(error)}, "a", (), lambda: 7, Choices())


@pytest.mark.parametrize("error", [Unsupported("no such shape"), RuntimeError("err 716 != CUDA_SUCCESS")], ids=repr)
def test_a_refusal_of_a_gpu_that_broke_down_is_no_refusal(error, monkeypatch):
    """After a kernel's fault every library fails, in its own words."""

    def broken():
        raise torch.AcceleratorError("CUDA error: misaligned address")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(torch.AcceleratorError, match="misaligned"):
        run("op", (1,), {"a": refusing(error)}, "a", (), lambda: 7, Choices())
    with pytest.raises(torch.AcceleratorError, match="misaligned"):
        with unsupported_on_error("cuDNN"):
            raise RuntimeError("err 716 != CUDA_SUCCESS")


def test_a_vector_for_each_sample_is_kept_from_cudnn_graphs(monkeypatch):
    monkeypatch.setattr(conv2d_epilogue, "_CUDNN_GRAPHS", {"cudnn_graph_1": None})
    x, weight = torch.empty(2, 64, 64, 64), torch.empty(64, 64, 3, 3)
    picked = []
    monkeypatch.setattr(conv2d_epilogue, "uses_kernels", lambda x: True)
    monkeypatch.setattr(conv2d_epilogue, "run", lambda op, key, table, *others: picked.append((key, table)))
    for rows in (1, 2):
        conv2d_epilogue._conv2d_epilogue(x, weight, None, torch.empty(rows, 64), None, 1, 1, "none")
    assert ["cudnn_graph_1" in table for _, table in picked] == [True, False]
    assert picked[0][0] != picked[1][0]  # neither takes over what was chosen for the other


def test_a_library_without_the_shape_is_unsupported():
    with pytest.raises(Unsupported, match="flash attention refuses"):
        with unsupported_on_error("flash attention"):
            raise RuntimeError("was not enabled for build")
    with pytest.raises(torch.OutOfMemoryError):
        with unsupported_on_error("flash attention"):
            raise torch.OutOfMemoryError("full")


def test_tensors_beyond_32_bit_offsets_are_refused():
    """The decoder's last level at 4096 x 4096; expanded, so that it needs no memory."""
    large = torch.zeros(1, 1, 1, 1).expand(1, 128, 4096, 4096)
    with pytest.raises(Unsupported, match="32-bit"):
        require_32_bit(large)
    require_32_bit(large[..., 1:])


def test_kernels_that_only_hopper_ran_are_offered_on_hopper_only(monkeypatch):
    x, weight = torch.empty(1, 64, 8, 8), torch.empty(64, 64, 3, 3)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    for hopper in (True, False):
        monkeypatch.setattr(dispatch, "is_hopper", lambda x, hopper=hopper: hopper)
        candidates, _ = conv2d_epilogue.implementations_for(x, weight, 1, 1)
        assert any(name.startswith("tma") for name in candidates) == hopper


def test_ops_run_on_the_device_of_their_operand(monkeypatch):
    """`--device cuda:1`: nothing else makes that device the current one."""
    current = [0]

    @contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", device)
    op = dispatch.on_its_device(lambda x, more: (current[-1], more))
    for is_cuda, index, expected in ((True, 1, 1), (True, 0, 0), (False, None, 0)):
        x = SimpleNamespace(is_cuda=is_cuda, device=SimpleNamespace(index=index))
        assert op(x, "more") == (expected, "more") and current == [0]


@pytest.mark.parametrize("op,args", [(linear_epilogue, (None, None, "none")), (linear_geglu, (None,))])
def test_a_transposed_weight_reaches_the_kernels_in_rows(op, args, monkeypatch):
    seen = []
    monkeypatch.setattr(op, "uses_kernels", lambda x: True)
    monkeypatch.setattr(op, "is_ampere_or_newer", lambda x: True, raising=False)
    monkeypatch.setattr(op, "run", lambda name, key, table, default, args, reference: seen.append(args) or reference())
    x, weight = torch.randn(5, 8), torch.randn(8, 12).t()
    y = getattr(torch.ops.lightdiffusion, op.__name__.rpartition(".")[2])(x, weight, *args)
    assert seen[0][1].stride(1) == 1
    reference = getattr(op, op.__name__.rpartition(".")[2] + "_reference")
    torch.testing.assert_close(y, reference(x.double(), weight.double(), *args).float(), rtol=1e-4, atol=1e-5)


def test_a_kernel_one_pixel_high_is_not_pointwise():
    x = torch.empty(1, 8, 16, 16)
    assert "cublas" in conv2d_epilogue.implementations_for(x, torch.empty(8, 8, 1, 1), 1, 0)[0]
    assert "cublas" not in conv2d_epilogue.implementations_for(x, torch.empty(8, 8, 1, 3), 1, 0)[0]


@pytest.mark.gpu
@pytest.mark.timeout(300)  # some hundred kernels to compile
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_implementation_on_the_gpu(dtype):
    checks = self_test.check_all(torch.device("cuda"), dtype)
    assert [c for c in checks if not c.passed] == []
    ran = {c.implementation for c in checks if not c.refused}
    assert {"cublas", "cudnn", "flash", "one_kernel", "two_kernels"} <= ran
    assert any(name.startswith("triton") for name in ran)
