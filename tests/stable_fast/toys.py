"""Compiles toy modules for the tests of single passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modules.stable_fast.compiler import compile_program
from modules.stable_fast.graph.staging import STEP
from modules.stable_fast.passes.base import FusionPass
from modules.stable_fast.report import CompileReport
from modules.stable_fast.runtime.weights import WeightStore
from tests import tiny
from tests.stable_fast.networks import operations, rel_error, run_program

Operations = dict[str, int]


@torch.no_grad()
def fuse(
    module: nn.Module, inputs: Sequence[Tensor], passes: Sequence[FusionPass], tolerance: float = 1e-5
) -> tuple[Operations, CompileReport]:
    """Compiles `module(*inputs)`, compares it with eager, and returns the step stage's operations and the report."""
    tiny.randomise(module)
    names = list(module.forward.__code__.co_varnames[1 : 1 + len(inputs)])
    call = dict(zip(names, inputs, strict=True))
    program, report = compile_program(WeightStore(module), call, bindings={}, dims={}, passes=passes)
    found, expected = run_program(program, call), module(*inputs)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for one, other in pairs:
        assert one.shape == other.shape and one.dtype == other.dtype
        assert rel_error(one, other) < tolerance
    return dict(operations(program.stages[STEP].graph)), report
