"""Refuses to trace a module that reads the contents of tensors in Python: a graph cannot depend on them."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import torch
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

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
