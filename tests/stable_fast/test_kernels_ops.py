"""The registered operators: fakes, strides, references against plain PyTorch, and the choice of implementation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels import self_test
from modules.stable_fast.kernels._dispatch import Choices
from modules.stable_fast.kernels.upsample_conv2d import prepare_subpixel_weight
from tests.stable_fast.kernel_device import Maker, assert_near

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
    assert choices.used == {("op", (1,)): "fast"}


def test_an_unknown_choice_falls_back_to_the_default():
    choices = Choices()
    choices.chosen["op", (1,)] = "from an older version"
    assert choices.pick("op", (1,), {"slow": None}, "slow", ()) == "slow"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_implementation_on_the_gpu(dtype):
    checks = self_test.check_all(torch.device("cuda"), dtype)
    assert [c for c in checks if not c.passed] == []
    ran = {c.implementation for c in checks if not c.refused}
    assert {"cublas", "cudnn", "flash", "one_kernel", "two_kernels"} <= ran
    assert any(name.startswith("triton") for name in ran)
