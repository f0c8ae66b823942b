"""Changes of a network are noticed, whatever made them: in place, past the versions, by new parts or attributes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import CompiledModule
from modules.stable_fast.changes.watch import Change, Watch
from tests.stable_fast.networks import random, rel_error


class Processor:
    """An object that is no module but is called, as diffusers' attention processors are."""

    def __init__(self) -> None:
        self.shift = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.shift


class Scaled(nn.Module):
    """A layer, and a weight that is used expanded, as position embeddings are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.shift = nn.Parameter(torch.randn(1, 8))
        self.scale = 2.0
        self.processor = Processor()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.processor(self.layer(x)) * self.scale + (self.shift * 2).expand(4, 8)


def past_the_version(module: Scaled) -> None:
    version = module.layer.weight._version
    module.layer.weight.data.add_(1)
    assert module.layer.weight._version == version


def in_place(module: Scaled) -> None:
    with torch.no_grad():
        module.layer.weight.mul_(2)


def another_order(module: Scaled) -> None:
    """The same values at other places."""
    module.layer.weight.data.copy_(module.layer.weight.flip(0))


def by_state_dict(module: Scaled) -> None:
    module.load_state_dict({**module.state_dict(), "layer.weight": torch.ones(8, 8)})


def another_tensor(module: Scaled) -> None:
    module.layer.weight = nn.Parameter(torch.zeros(8, 8))


def other_strides(module: Scaled) -> None:
    """The same memory, read in another order."""
    module.layer.weight.data = module.layer.weight.data.t()


def an_equal_tensor(module: Scaled) -> None:
    module.shift = nn.Parameter(module.shift.detach().clone())


def another_attribute(module: Scaled) -> None:
    module.scale = 3.0


def inside_the_processor(module: Scaled) -> None:
    module.processor.shift = 5.0


def another_processor(module: Scaled) -> None:
    module.processor = Processor()


def a_hook(module: Scaled) -> None:
    module.layer.register_forward_hook(lambda *_: None)


def no_bias(module: Scaled) -> None:
    module.layer.bias = None  # type: ignore[assignment]


CONTENTS = (past_the_version, in_place, another_order, by_state_dict)
PARTS = (
    another_tensor,
    an_equal_tensor,
    other_strides,
    another_attribute,
    inside_the_processor,
    another_processor,
    a_hook,
    no_bias,
)


@pytest.mark.parametrize("change", CONTENTS)
def test_other_contents_are_named(change: Callable[[Scaled], None]) -> None:
    module = Scaled()
    watch = Watch(module)
    change(module)
    assert "layer.weight" in watch.look().weights
    assert watch.look() == Change(rebuilt=False)


@pytest.mark.parametrize("change", PARTS)
def test_other_parts_are_noticed(change: Callable[[Scaled], None]) -> None:
    module = Scaled()
    watch = Watch(module)
    change(module)
    assert watch.look().rebuilt
    assert watch.look() == Change(rebuilt=False)


@pytest.mark.parametrize("change", (*CONTENTS, *PARTS))
def test_a_compiled_module_that_looks_is_never_stale(change: Callable[[Scaled], None]) -> None:
    module, x = Scaled(), random(4, 8)
    compiled = CompiledModule(module)
    compiled.look()
    compiled(x)
    change(module)
    compiled.look()
    with torch.no_grad():
        assert rel_error(compiled(x), module(x)) < 1e-6
    assert compiled.report.counters.traces == (1 if change in CONTENTS else 2)


def test_a_first_look_after_a_full_one_finds_contents_too() -> None:
    """A part that changed and changed back is no other part, and the weights are compared all the same."""
    module = Scaled()
    watch = Watch(module)
    module.processor.shift = 3.0
    assert watch.look().rebuilt
    module.scale, module.extra = 2.0, None
    del module.extra
    past_the_version(module)
    assert watch.look() == Change(rebuilt=False, weights=frozenset({"layer.weight"}))


def test_expanded_values_are_refreshed() -> None:
    module, x = Scaled(), random(4, 8)
    compiled = CompiledModule(module)
    compiled(x)
    with torch.no_grad():
        module.shift.add_(1)
        compiled.refresh_weights()
        assert rel_error(compiled(x), module(x)) < 1e-6
    assert compiled.report.counters.traces == 1


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x) @ (self.second.weight * 2)


def test_all_names_of_a_tied_weight_are_refreshed() -> None:
    module, x = Tied(), random(4, 8)
    compiled = CompiledModule(module)
    compiled.look()
    compiled(x)
    module.first.weight.data.add_(1)
    assert Watch(module).look() == Change(rebuilt=False)
    compiled.look()
    with torch.no_grad():
        assert rel_error(compiled(x), module(x)) < 1e-6


def test_what_is_written_past_its_version_waits_for_a_look_that_reads_weights() -> None:
    module = Scaled()
    watch = Watch(module)
    past_the_version(module)
    assert watch.look(reads_weights=False) == Change(rebuilt=False)
    in_place(module)
    assert watch.look(reads_weights=False).weights == {"layer.weight"}
    assert watch.look().weights == {"layer.weight"}
    assert watch.look() == Change(rebuilt=False)
