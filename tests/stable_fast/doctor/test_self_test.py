"""The self-test distinguishes wrong results, refusals and faults, and launches only our own kernels in advance."""

from __future__ import annotations

import torch

from modules.stable_fast.doctor import self_test
from modules.stable_fast.kernels.norm import layer_norm
from tests.stable_fast.kernels.stand_ins import refusing

CPU = torch.device("cpu")


def test_a_wrong_result_fails_the_self_test():
    case = next(case for case in self_test.cases(CPU, torch.float32) if case.op == "linear_geglu")
    wrong = self_test.Case(case.op, lambda *args: case.reference(*args) * 1.01, case.args)
    assert [c.passed for c in self_test.check(wrong)] == [False]


def test_a_fault_ends_the_self_test_with_the_one_to_blame(monkeypatch):
    def faults(*args):
        raise torch.AcceleratorError("CUDA error: misaligned address")

    later = refusing(torch.AcceleratorError("CUDA error: misaligned address"))
    table = {"good": lambda x, weight, bias, eps: layer_norm.layer_norm_reference(x, weight, bias, eps)}
    monkeypatch.setattr(layer_norm, "_NORM", table | {"bad": faults, "later": later})
    monkeypatch.setattr(layer_norm, "fits_rows", lambda x: True)
    checks = self_test.check_all(CPU, torch.float32)
    found = [(c.implementation, c.fault, c.passed) for c in checks if c.op == "layer_norm"]
    assert found == [("good", "", True), ("bad", "CUDA error: misaligned address", False)]
    assert checks[-1].op == "layer_norm" and later.calls == 0
