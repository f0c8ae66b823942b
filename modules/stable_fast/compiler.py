"""All steps in order: trace a module, label what each operation needs, fuse, split into stages, prepare weights.

If an earlier run left a fused graph on disk, the first three steps are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from modules.stable_fast.config import StableFastConfig
from modules.stable_fast.fuse import fuse, moments_of
from modules.stable_fast.graph.serialize import Fused
from modules.stable_fast.graph.sizes import SizeError
from modules.stable_fast.graph.staging import WEIGHTS, Stage, result_names, split
from modules.stable_fast.graph.trace import Traced, TraceError, device_of, first_line
from modules.stable_fast.graph.verify import VerifyError
from modules.stable_fast.passes import FusionPass, passes_for
from modules.stable_fast.passes.base import count_calls
from modules.stable_fast.precision import eight_bits_in_force
from modules.stable_fast.report import CompileReport, Report
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.store.cache import BROKEN, VerifiedSizes, discard, graph_path, read_graph, write_graph

# Compiler errors after which a network has to run eagerly.
CANNOT_COMPILE = (TraceError, VerifyError, SizeError, NotImplementedError)


def why_eager(error: Exception) -> str:
    """Why a module has to run eagerly, given the error from building or running its program."""
    return str(error) if isinstance(error, CANNOT_COMPILE) else f"its program fails: {first_line(error)}"


def how_to_compile(
    module: nn.Module, example: Mapping[str, Any], config: StableFastConfig, report: Report
) -> dict[str, Any]:
    """The passes and sums of a program on the call's device. The report tells why a precision has no effect."""
    device = device_of(module, example)
    eight_bits, report.precision_reason = eight_bits_in_force(config, device, module)
    passes = passes_for(device, captured=report.level.captured, eight_bits=eight_bits)
    return {"passes": passes, "sums_in_half": config.sums_in_half}


def tell_unmatched(report: Report, passes: Sequence[FusionPass]) -> None:
    """Lets the report tell that a precision has no effect, if none of the network's programs has a layer for it."""
    lowering = [fusion.name for fusion in passes if fusion.lowers_precision]
    if lowering and not any(program.matches.get(name) for program in report.programs for name in lowering):
        report.precision_reason = "no layer of this network is of a kind that computes so"


def compile_program(
    store: WeightStore,
    example: Mapping[str, Any],
    *,
    bindings: Mapping[str, str],
    dims: Mapping[str, Any],
    passes: Sequence[FusionPass],
    reads_kept: bool = True,
    sums_in_half: bool = False,
) -> tuple[Program, CompileReport]:
    """One program that serves `module(**example)` and all other values of the sizes named in `dims`.

    `bindings` maps inputs to the moment they become known (see graph/staging.py). The default is each step.
    Without `reads_kept` the module is traced even if an earlier run left its graph, which is the same for any
    precision.
    """
    moments = moments_of(example, bindings)
    store.come_to(device_of(store.module, example))
    path = graph_path(store.module, example, dims, bindings, [fusion.name for fusion in passes])
    started = time.perf_counter()
    kept = read_graph(path) if path and reads_kept else None
    if path and kept:
        try:
            for name in kept.traced.weights.values():
                store.source(name)
            return build_program(kept, store, moments, started, path, from_disk=True, sums_in_half=sums_in_half)
        except BROKEN as error:
            discard(path, error)
    fused = fuse(store.module, example, bindings, dims, passes, store.device)
    if path:
        write_graph(path, fused)
    return build_program(fused, store, moments, started, path, from_disk=False, sums_in_half=sums_in_half)


def build_program(
    fused: Fused,
    store: WeightStore,
    moments: Mapping[str, str],
    started: float,
    path: Path | None,
    *,
    from_disk: bool,
    sums_in_half: bool = False,
) -> tuple[Program, CompileReport]:
    """Splits the fused graph into stages and prepares its weights. The graph is saved at `path`."""
    graph = fused.traced.graph
    stages = split(graph)
    fused_at = time.perf_counter()
    how: dict[str, Any] = {"kept_at": path if from_disk else None, "sums_in_half": sums_in_half}
    program = assemble(fused.traced, moments, stages, store, VerifiedSizes(path), **how)
    report = CompileReport(
        nodes_before=fused.nodes_before,
        nodes_after=count_calls(graph),
        matches=fused.matches,
        stage_nodes={name: len(stage) for name, stage in stages.items()},
        from_disk=from_disk,
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
    *,
    kept_at: Path | None = None,
    sums_in_half: bool = False,
) -> Program:
    """Makes a program from staged graphs. Evaluates the weights stage and keeps its results in the store."""
    weights = {**traced.weights, **store.keep_constants(traced.constants)}
    for name in weights.values():
        store.source(name)  # watched from now on, not from the first call
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
        kept_at=kept_at,
        sums_in_half=sums_in_half,
    )
