"""The readable sequence: trace a module, label what each operation needs, fuse, split into stages, prepare weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from modules.stable_fast.passes import FusionPass, run_passes
from modules.stable_fast.passes.base import count_calls
from modules.stable_fast.program import Program
from modules.stable_fast.report import CompileReport
from modules.stable_fast.sizes import SizeError
from modules.stable_fast.staging import WEIGHTS, Stage, label, result_names, split
from modules.stable_fast.trace import Traced, TraceError, trace
from modules.stable_fast.verify import VerifyError, check
from modules.stable_fast.weights import WeightStore

# What compiling raises for a network that has to run eagerly.
CANNOT_COMPILE = (TraceError, VerifyError, SizeError, NotImplementedError)


def compile_program(
    store: WeightStore,
    example: Mapping[str, Any],
    *,
    bindings: Mapping[str, str],
    dims: Mapping[str, Any],
    passes: Sequence[FusionPass],
) -> tuple[Program, CompileReport]:
    """One program for `module(**example)` and every other value of the sizes that `dims` names.

    `bindings` says when each input becomes known (see staging.py); inputs it leaves out are known at each step.
    """
    started = time.perf_counter()
    traced = trace(store.module, example, dims)
    traced_at = time.perf_counter()
    nodes_before = count_calls(traced.graph)
    moments = {name: bind(name, bindings) for name in traced.inputs}
    label(traced.graph, moments, traced.sizes)
    matches = run_passes(traced.graph, traced.sizes, passes)
    check(traced.graph)
    stages = split(traced.graph)
    program = assemble(traced, moments, stages, store)
    report = CompileReport(
        nodes_before=nodes_before,
        nodes_after=count_calls(traced.graph),
        matches=matches,
        stage_nodes={name: len(stage) for name, stage in stages.items()},
        trace_seconds=traced_at - started,
        compile_seconds=time.perf_counter() - started,
    )
    return program, report


def bind(name: str, bindings: Mapping[str, str]) -> str:
    """The moment of a flattened input: `control_3` is bound as `control` is."""
    head, _, tail = name.rpartition("_")
    if name in bindings or not tail.isdecimal():
        return bindings.get(name, "step")
    return bind(head, bindings)


def assemble(traced: Traced, moments: Mapping[str, str], stages: Mapping[str, Stage], store: WeightStore) -> Program:
    """The program of staged graphs, its weights stage evaluated into the store."""
    weights = {**traced.weights, **store.keep_constants(traced.constants)}
    return Program(
        stages=stages,
        inputs=traced.inputs,
        moments=moments,
        dims=traced.dims,
        sizes=traced.sizes,
        results=result_names(traced.graph),
        out_spec=traced.out_spec,
        store=store,
        prepared=store.add(stages[WEIGHTS], weights),
        weights=weights,
    )
