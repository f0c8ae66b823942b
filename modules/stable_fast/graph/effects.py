"""Refuses to trace what a graph cannot repeat.

A graph would change once, and never again, what the module changes while it runs. It cannot depend on the contents of
tensors that the module reads in Python.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from modules.stable_fast.changes.fingerprint import fact_of, has_state
from modules.stable_fast.graph.errors import TraceError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


READS = (DataDependentOutputException, DynamicOutputShapeException)  # errors of a read that was refused


def refuse_reads() -> None:
    """Lets reads raise one of READS in the trace in progress.

    torch.export would go on with an unknown number instead. A loop over such numbers takes minutes, and then fails.
    """
    mode = detect_fake_mode()
    if mode is not None and mode.shape_env is not None:
        settings = mode.shape_env.settings
        mode.shape_env.settings = replace(settings, allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)


def where(error: BaseException) -> str:
    """The file and line that made the read: the last one outside PyTorch."""
    library = str(Path(torch.__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(library)]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "inside PyTorch"


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """Attributes of the module and its parts that may be counters or switches, and objects that may hold some."""
    return {
        f"{path}.{name}".removeprefix("."): repr(value) if is_plain else fact_of(value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        for is_plain in [value is None or isinstance(value, (bool, int, float, str))]
        if is_plain or has_state(value)
    }


def check_effects(
    program: ExportedProgram, before: Mapping[str, Any], after: Mapping[str, Any], paths: Mapping[str, str]
) -> None:
    """Raises TraceError for attributes that differ after the call, and for buffers and inputs that it writes to."""
    for name in (*before, *after) if after else ():  # empty if the hook did not run
        if before.get(name) != after.get(name):
            raise TraceError(f"it changes its own attribute {name} while it runs")
    signature = program.graph_signature
    for name in signature.buffers_to_mutate.values():
        raise TraceError(f"it changes its own buffer {name} while it runs")
    for name in signature.user_inputs_to_mutate.values():
        raise TraceError(f"it writes to its input {paths.get(name, name)}")
    for node in program.graph.nodes:
        if node.op == "call_function" and "as_strided" in str(node.target):
            raise TraceError("it reads memory by strides (as_strided), and Stable-Fast has a layout of its own")
