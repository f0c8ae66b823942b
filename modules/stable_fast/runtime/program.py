"""A compiled module: staged graphs that serve any value of the named sizes, and the functions made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from modules.stable_fast.calibration.observe import run_stage
from modules.stable_fast.calibration.scales import Scales
from modules.stable_fast.graph.sizes import Dims, Sizes, measure, parse_dim
from modules.stable_fast.graph.staging import ROWS, STEP, TIME, Stage, draws, has_rows, lent_results
from modules.stable_fast.graph.verify import at_sizes, propagate
from modules.stable_fast.kernels.accumulation import summing_in_half
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.store.cache import VerifiedSizes

Values = dict[str, Tensor]


@dataclass(frozen=True)
class StageFunction:
    """One stage at actual sizes: takes named values, returns the named values it computes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: fx.GraphModule
    scales: Scales
    sums_in_half: bool = False

    def __call__(self, values: Mapping[str, Tensor]) -> Values:
        with summing_in_half(allowed=self.sums_in_half):
            results = run_stage(self.module, [values[name] for name in self.inputs], self.scales)
        return dict(zip(self.outputs, results, strict=True))


@dataclass(frozen=True)
class Program:
    """The result of compiling one module for one form of call."""

    stages: Mapping[str, Stage]
    inputs: tuple[str, ...]
    moments: Mapping[str, str]  # input -> moment when it becomes known
    dims: Mapping[str, Dims]
    sizes: Sizes
    results: tuple[str, ...]  # values that make up the result
    out_spec: pytree.TreeSpec
    store: WeightStore
    prepared: Mapping[str, str]  # value of the weights stage -> key in the store
    weights: Mapping[str, str]  # placeholder -> parameter or constant
    verified: VerifiedSizes
    kept_at: Path | None = None  # the file that the graph was read from; None if it was traced
    sums_in_half: bool = False  # see kernels/accumulation.py
    _functions: dict[tuple[Any, ...], StageFunction] = field(default_factory=dict)

    def inputs_at(self, moment: str) -> tuple[str, ...]:
        return tuple(name for name in self.inputs if self.moments[name] == moment)

    def has_rows(self, stage: str, name: str) -> bool:
        """Whether an input of a stage has one entry for each row of the batch."""
        node = next(node for node in self.stages[stage].graph.nodes if node.name == name)
        return has_rows(node, self.sizes)

    def inputs_with_rows(self, moment: str) -> tuple[str, ...]:
        """The inputs of a moment that have an entry for each row of the batch."""
        first = {name: self.dims.get(name, ())[:1] for name in self.inputs_at(moment)}
        return tuple(name for name, dim in first.items() if dim and dim[0] and parse_dim(dim[0])[1] == ROWS)

    @cached_property
    def has_one_time(self) -> bool:
        """Whether all rows have the same timestep, which the time stage then computes with once."""
        is_result = set(self.stages[TIME].outputs) & set(self.results)
        has_rows = not self.inputs_at("time") or self.inputs_with_rows("time")
        return ROWS in self.sizes.primes and not has_rows and not is_result

    def measure(self, tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """The named sizes of these inputs. Raises SizeError if this program cannot serve them."""
        return measure(self.dims, tensors)

    def constants(self, stage: str) -> Values:
        """The parameters and prepared weights that a stage uses; for the last stage, also those that are results."""
        values: Values = {}
        for name in (*self.stages[stage].inputs, *(self.results if stage == STEP else ())):
            if name in self.prepared:
                values[name] = self.store.values[self.prepared[name]]
            elif name in self.weights:
                values[name] = self.store.here(self.weights[name])
        return values

    def function(self, stage: str, actual: Mapping[str, int]) -> StageFunction:
        """A stage at these sizes, built once and verified before its first use."""
        key = (stage, *sorted(actual.items()))
        if key not in self._functions:
            part = self.stages[stage]
            module = specialise(part, self.sizes, actual)
            if key not in self.verified:
                propagate(module.graph, self.sizes, actual)
                self.verified.add(key)
            self._functions[key] = StageFunction(
                part.inputs, part.outputs, module, self.store.scales, self.sums_in_half
            )
        return self._functions[key]

    @cached_property
    def draws(self) -> bool:
        """Whether the program draws random numbers."""
        return any(draws(node) for node in self.stages[STEP].graph.nodes)

    @cached_property
    def _lent(self) -> frozenset[str]:
        return lent_results(self.stages, self.results)

    def result(self, values: Mapping[str, Tensor]) -> Any:
        """The result, safe for the caller to change: values that later calls use or that occur twice are copied."""
        leaves = [_own(values[name]) if name in self._lent else values[name] for name in self.results]
        return pytree.tree_unflatten(leaves, self.out_spec)


def _own(value: Tensor) -> Tensor:
    """A copy, or the value itself during a capture, since graphs return copies."""
    return value if value.is_cuda and torch.cuda.is_current_stream_capturing() else value.clone()


def specialise(part: Stage, sizes: Sizes, actual: Mapping[str, int]) -> fx.GraphModule:
    """The stage's graph with actual sizes in place of traced sizes."""
    return fx.GraphModule(nn.Module(), at_sizes(part.graph, sizes, actual), part.name)
