"""The registered operators: fakes, strides, and references against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.doctor import self_test
from modules.stable_fast.kernels.linear import linear_epilogue, linear_geglu
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
    """Shapes, strides and dtypes agree in fake tensor mode, and the schema describes aliasing correctly."""
    operator = getattr(torch.ops.lightdiffusion, op).default
    torch.library.opcheck(operator, CASES[op].args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_references_agree_with_float64(op, dtype):
    checks = [c for case in self_test.cases(CPU, dtype) if case.op == op for c in self_test.check(case)]
    assert checks and [c for c in checks if not c.passed] == []
    assert {c.implementation for c in checks} == {"chosen"}  # only the reference runs on a CPU


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


@pytest.mark.parametrize("op,args", [(linear_epilogue, (None, None, "none")), (linear_geglu, (None,))])
def test_a_transposed_weight_reaches_the_kernels_in_rows(op, args, monkeypatch):
    seen = []
    monkeypatch.setattr(op, "uses_kernels", lambda x: True)
    monkeypatch.setattr(
        op, "run_chosen", lambda name, key, table, chain, args, reference: seen.append(args) or reference()
    )
    x, weight = torch.randn(5, 8), torch.randn(8, 12).t()
    y = getattr(torch.ops.lightdiffusion, op.__name__.rpartition(".")[2])(x, weight, *args)
    assert seen[0][1].stride(1) == 1
    reference = getattr(op, op.__name__.rpartition(".")[2] + "_reference")
    torch.testing.assert_close(y, reference(x.double(), weight.double(), *args).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.timeout(300)  # compiles about a hundred kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_implementation_on_the_gpu(dtype):
    checks = self_test.check_all(torch.device("cuda"), dtype)
    assert [c for c in checks if not c.passed] == []
    ran = {c.implementation for c in checks if not c.refused}
    assert {"cublas", "cudnn", "flash", "one_kernel", "two_kernels"} <= ran
    assert any(name.startswith("triton") for name in ran)
