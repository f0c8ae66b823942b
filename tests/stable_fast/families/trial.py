"""One network of another library, tiny and random: which of its sizes change without a new trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast import CompiledModule, TraceError, compile_module
from modules.stable_fast.graph.flatten import flatten_inputs

TOLERANCE = 1e-4  # largest difference; of values beyond 1, relative to the largest
EXAMPLE = 0  # the first of a size's two values

Sizes = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Network:
    """How to make a network and its calls.

    `sizes`: name -> its value in the example, and another one. `call`: the inputs at these sizes, always the same.
    `anew`: why some names do not hold, for the documentation; empty if all hold.
    """

    make: Callable[[], nn.Module]
    sizes: Mapping[str, tuple[int, int]]
    call: Callable[[Sizes], dict[str, Any]]
    dims: Mapping[str, Any]
    moments: Mapping[str, str] = field(default_factory=dict[str, str])
    anew: str = ""

    def at(self, **others: int) -> dict[str, Any]:
        """The example call, or that with other values of some sizes."""
        torch.manual_seed(11)
        return self.call({name: values[EXAMPLE] for name, values in self.sizes.items()} | others)


@dataclass(frozen=True)
class Trial:
    """What was found: the names that hold and those that do not, or why the network cannot be compiled."""

    holding: tuple[str, ...]
    failing: tuple[str, ...]
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return not self.failing and not self.error

    def row(self, name: str, anew: str) -> str:
        """The network's row in docs/diffusers.md."""
        first, second = (", ".join(f"`{each}`" for each in names) for names in (self.holding, self.failing))
        return f"| {name} | {first} | {second}{': ' if second and anew else ''}{anew} |"


@torch.no_grad()
def tried(network: Network) -> Trial:
    """Compiles the network with all its sizes named, and changes one after another, the batch first."""
    module, call = network.make().eval(), network.at()
    moments = {name: moment for name, moment in network.moments.items() if name in call}
    try:
        fast = compile_module(module, call, moments, network.dims)
    except TraceError as error:
        return Trial((), tuple(network.sizes), str(error))
    check(fast, module, network, {})
    failing: list[str] = []
    for name, (_, other) in network.sizes.items():
        before = fast.report.counters.traces
        check(fast, module, network, {name: other})
        if fast.report.counters.traces > before:
            failing.append(name)
    check(fast, module, network, {name: other for name, (_, other) in network.sizes.items()})
    return Trial(tuple(name for name in network.sizes if name not in failing), tuple(failing))


def check(fast: CompiledModule, module: nn.Module, network: Network, others: Sizes) -> None:
    """The compiled network gives the network's own result at these sizes, and ran compiled."""
    eager_before = fast.report.counters.eager_steps
    found, expected = fast(**network.at(**others)), module(**network.at(**others))
    assert difference(found, expected) < TOLERANCE, f"another result at {dict(others)}"
    assert fast.report.counters.eager_steps == eager_before, fast.report.status_line()


def difference(found: Any, expected: Any) -> float:
    """The largest difference between two results of any structure."""
    first, second = (flatten_inputs({"result": result}) for result in (found, expected))
    assert first.keys() == second.keys() and first
    return max(_distance(first[name], second[name]) for name in first)


def _distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    largest = max(1.0, float(expected.double().abs().max()))
    return float((found.double() - expected.double()).abs().max()) / largest
