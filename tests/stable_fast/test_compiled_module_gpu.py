"""compile_module on a GPU: what is captured, who owns the memory of results, threads, sizes, other layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module
from modules.stable_fast.runtime.size_check import agrees
from tests.stable_fast.networks import random
from tests.stable_fast.runtime.test_size_check import MORE_THAN_SHAPES, Calls
from tests.stable_fast.test_compiled_module import (
    DRAWS,
    Attends,
    GivesBack,
    Timed,
    assert_draws_as_eager,
    in_one_size_and_any,
)

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-4


def on_gpu(*shape: int, seed: int = 0) -> Tensor:
    return random(*shape, seed=seed).cuda()


def all_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    return all(torch.allclose(one, other, atol=TOLERANCE) for one, other in zip(found, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("level", ["graph", "full"])
def test_a_time_on_the_cpu_reaches_a_captured_call(level: str) -> None:
    module, x = Timed().cuda(), on_gpu(2, 3)
    compiled = compile_module(module, (x, torch.tensor(500.0)), {"t": "time"}, level=level)
    for value in (500.0, 3.0, 0.25):
        assert torch.allclose(compiled(x, torch.tensor(value)), module(x, torch.tensor(value)), rtol=1e-5, atol=1e-3)
    assert compiled.report.level == level, compiled.report.reason
    assert compiled.report.counters.captures == 1


@in_one_size_and_any
@pytest.mark.parametrize("way", [way for way in DRAWS if way != "randn"])  # randn draws on the CPU
def test_random_numbers_are_drawn_anew_and_as_eager_draws_them(way: str, dims: Mapping[str, Any]) -> None:
    assert assert_draws_as_eager(way, dims, "cuda").report.counters.captures == 0


@torch.no_grad()
def test_captured_results_belong_to_the_caller() -> None:
    module, x, text = GivesBack().cuda(), on_gpu(4, 3), on_gpu(4, 3, seed=1)
    expected = module(x, text)
    compiled = compile_module(module, {"x": x, "text": text}, {"text": "prompt"})
    first = compiled(x=x, text=text)
    compiled(x=x, text=3 * text)
    assert all_close(first, expected)
    compiled.prepare(text=text)
    for place in range(len(expected)):
        result = compiled(x=x)
        if result[place].is_contiguous():
            result[place].add_(100)
        others = [index for index in range(len(expected)) if index != place]
        assert all_close(tuple(result[index] for index in others), tuple(expected[index] for index in others))
        assert all_close(compiled(x=x), expected)
    assert compiled.report.level == "full" and compiled.report.counters.captures == 1


def test_threads_share_a_captured_module() -> None:
    module, x = Attends().cuda(), on_gpu(2, 5, 8)
    texts = [on_gpu(2, 7, 8, seed=seed) for seed in range(4)]
    compiled = compile_module(module, {"x": x, "text": texts[0]}, {"text": "prompt"})
    with torch.no_grad():
        expected = [module(x, text) for text in texts]
    together = threading.Barrier(len(texts))

    def wrong(index: int) -> int:
        together.wait()
        results = [compiled(x=x, text=texts[index]) for _ in range(50)]
        return sum(not torch.allclose(result, expected[index], atol=TOLERANCE) for result in results)

    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(wrong, range(len(texts)))) == [0] * len(texts)
    assert compiled.report.level == "full" and compiled.report.counters.captures == 1


@torch.no_grad()
@pytest.mark.parametrize("use", ["root", "quotient", "branch"])
def test_a_size_that_is_more_than_a_shape_is_captured_for_itself(use: str) -> None:
    module = Calls(MORE_THAN_SHAPES[use]).eval().cuda()
    compiled = compile_module(module, {"x": on_gpu(4, 10)}, dims={"x": ("batch", "n")})
    for shape in ((4, 10), (1, 10), (4, 200), (4, 10)):
        x = on_gpu(*shape)
        assert agrees(compiled(x), module(x))
    assert compiled.report.level == "full" and compiled.report.counters.captures > 1


@torch.no_grad()
def test_another_layer_is_captured_when_told() -> None:
    module, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).eval().cuda(), on_gpu(2, 3)
    compiled = compile_module(module, (x,))
    changes: list[Callable[[], object]] = [
        lambda: module.__setitem__(1, nn.ReLU()),
        lambda: module[0].register_forward_hook(lambda layer, inputs, output: output * 2),
        lambda: module.half().float(),  # other memory
    ]
    assert torch.allclose(compiled(x), module(x), atol=TOLERANCE)
    for change in changes:
        change()
        compiled.refresh_weights()
        for _ in range(2):
            assert torch.allclose(compiled(x), module(x), atol=TOLERANCE)
    assert compiled.report.level == "full" and compiled.report.counters.captures > 0
