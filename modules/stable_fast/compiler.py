"""The readable sequence: trace a module, label what each operation needs, fuse, split into stages, prepare weights.

Trace and fusion are left out where an earlier start has left the fused graph on disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from modules.stable_fast.cache import VerifiedSizes, graph_path, read_graph, write_graph
from modules.stable_fast.fusing import fuse, moments_of
from modules.stable_fast.passes import FusionPass
from modules.stable_fast.passes.base import count_calls
from modules.stable_fast.program import Program
from modules.stable_fast.report import CompileReport
from modules.stable_fast.sizes import SizeError
from modules.stable_fast.staging import WEIGHTS, Stage, result_names, split
from modules.stable_fast.trace import Traced, TraceError
from modules.stable_fast.verify import VerifyError
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
    path = graph_path(store.module, example, dims, bindings, [fusion.name for fusion in passes])
    fused = read_graph(path) if path else None
    was_kept = fused is not None
    if fused is None:
        fused = fuse(store.module, example, bindings, dims, passes)
        if path:
            write_graph(path, fused)
    graph = fused.traced.graph
    stages = split(graph)
    fused_at = time.perf_counter()
    program = assemble(fused.traced, moments_of(fused.traced.inputs, bindings), stages, store, VerifiedSizes(path))
    report = CompileReport(
        nodes_before=fused.nodes_before,
        nodes_after=count_calls(graph),
        matches=fused.matches,
        stage_nodes={name: len(stage) for name, stage in stages.items()},
        from_disk=was_kept,
        trace_seconds=fused_at - started,
        compile_seconds=time.perf_counter() - started,
    )
    return program, report


def assemble(
    traced: Traced,
    moments: Mapping[str, str],
    stages: Mapping[str, Stage],
    store: WeightStore,
    verified: VerifiedSizes,
) -> Program:
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
        verified=verified,
    )
