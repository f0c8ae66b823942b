"""`compile_module`: the entry point for other people's networks. It checks its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.stable_fast.compiled_module import CompiledModule
from modules.stable_fast.graph.trace import TraceError
from modules.stable_fast.graph.verify import VerifyError
from modules.stable_fast.module_call import bind_call, check_example
from modules.stable_fast.store.exchange import table_for


def compile_module(
    module: nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[Any],
    bindings: Mapping[str, str] | None = None,
    dims: Mapping[str, Any] | None = None,
    *,
    level: str = "full",
    table: Path | str | None = None,
    precision: str = "off",
) -> CompiledModule:
    """Traces, stages and fuses any module. Raises TraceError if it cannot be turned into one graph.

    `bindings`: when each input becomes known, "prompt", "time", "latent" or (by default) "step".
    `dims`: names for dimensions that may change without a new trace, such as ("batch", None, "8*height", "8*width").
    The first call at each such size is compared with the module. If they differ, each size gets its own trace.
    `table`: a file of `--stable-fast-export`, with the fastest kernels on this card.
    `precision`: "fp16-accumulate" lets products in fp16 be summed in fp16, for GeForce cards; "fp8" and "int8" compute
    layers of the kinds that a UNet has in eight bits. The report tells why one has no effect.
    Raises ValueError if any argument does not fit the module and its example, or the module is in training mode;
    OptionsError for a table of another card, or a file that is none.
    """
    device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
    choices = table_for(table, device) if table is not None else None
    how: dict[str, Any] = {"level": level, "table": choices, "precision": precision}
    compiled = CompiledModule(module, bindings, dims, **how, proves_sizes=True)
    by_name = isinstance(example_inputs, Mapping)
    args, kwargs = ((), example_inputs) if by_name else (example_inputs, {})
    example = bind_call(inspect.signature(module.forward), args, kwargs)
    check_example(module, example, bindings or {}, dims or {})
    try:
        compiled.compile(*args, **kwargs)
    except VerifyError as error:
        raise TraceError(f"{type(module).__name__} cannot be compiled: {error}") from error
    return compiled
