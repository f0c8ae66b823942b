"""compile_module's behaviour: refusals and their messages, numbers, training, moved weights."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast import CompiledModule, TraceError, compile_module, engine
from modules.stable_fast.graph import trace
from modules.stable_fast.module_call import on_one_device
from tests.stable_fast.networks import random, rel_error
from tests.stable_fast.runtime.test_capture_footguns import FakeCapture

TOLERANCE = 1e-5
IMAGE = {"input": ("batch", None, "height", "width")}


def convolution() -> nn.Module:
    return nn.Conv2d(4, 8, 3, padding=1).eval()


class Timed(nn.Module):
    """Scales by the time of a step, given in any form."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.eval()

    def forward(self, x: Tensor, t: Tensor | float, c: Tensor | None = None, **others: Tensor) -> Tensor:
        y = self.linear(x) * t
        for other in others.values():
            y = y - other
        return y if c is None else y + c


class Refusing(nn.Module):
    """Raises the given error, always or only during tracing."""

    def __init__(self, error: type[Exception], *, always: bool) -> None:
        super().__init__()
        self.error, self.always = error, always
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 3 and (self.always or type(x) is not Tensor):
            raise self.error("three")
        return x.sin()


def outcome(call: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as caught:
        call()
    return caught.type, str(caught.value)


@pytest.mark.parametrize("args", [(random(1, 5, 8, 8),), (random(1, 4, 8, 8).double(),), ("x",), (), (random(8, 8),)])
def test_a_call_that_eager_refuses_changes_nothing(args: tuple[Any, ...]) -> None:
    module, x = convolution(), random(1, 4, 8, 8)
    compiled = compile_module(module, (x,), dims=IMAGE)
    compiled(x)
    before = compiled.report.to_dict()
    with torch.no_grad():
        assert outcome(lambda: compiled(*args)) == outcome(lambda: module(*args))
    assert compiled.report.to_dict() == before
    with torch.no_grad():
        assert rel_error(compiled(x), module(x)) < TOLERANCE
    assert compiled.report.level == "fused" and compiled.report.counters.traces == 1


@pytest.mark.parametrize("error", [KeyError, AssertionError, NotImplementedError])
def test_only_what_eager_can_do_lowers_the_level(error: type[Exception]) -> None:
    module, x = Refusing(error, always=True), random(1, 3)
    compiled = compile_module(module, (random(1, 4),), dims={"x": ("batch", None)})
    assert outcome(lambda: compiled(x)) == outcome(lambda: module(x))
    assert compiled.report.level == "full"
    module.always = False
    assert torch.equal(compiled(x), x.sin())
    assert "off instead of full (Refusing cannot be traced" in compiled.report.status_line()


@torch.no_grad()
def test_a_tensor_of_another_rank_is_another_form_of_call() -> None:
    module = Timed()
    dims = {"x": ("batch", None), "t": ("batch", None)}
    compiled = compile_module(module, (random(2, 3), random(2, 1)), {"x": "latent", "t": "time"}, dims)
    for x, t in (
        (random(2, 3), torch.tensor(0.5)), (random(4, 3), torch.tensor(2.0)), (random(3), torch.ones(3)),
        (random(5, 3), random(5, 1)),
    ):  # fmt: skip
        assert rel_error(compiled(x, t), module(x, t)) < TOLERANCE
    assert compiled.report.level == "fused"


@torch.no_grad()
def test_a_time_without_dimensions() -> None:
    module = Timed()
    bindings, dims = {"x": "latent", "t": "time"}, {"x": ("batch", None), "t": ()}
    compiled = compile_module(module, (random(2, 3), torch.tensor(0.5)), bindings, dims)
    for rows, value in ((2, 0.5), (4, 2.0)):
        call = random(rows, 3), torch.tensor(value)
        assert rel_error(compiled(*call), module(*call)) < TOLERANCE
    assert compiled.report.counters.traces == 1 and compiled.report.level == "fused"


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({"t": ("batch",)}, "input t has 0 dimensions, but dims gives it 1"),
        ({"x": ("batch", None, None)}, "input x has 2 dimensions, but dims gives it 3"),
        ({"x": ("batch",)}, "input x has 2 dimensions, but dims gives it 1"),
        ({"x": ("2*batch", "2*width")}, "input x has a dimension of 3, which is not a multiple of 2"),
        ({"x": ("batch*2", None)}, "dimension 'batch.2' is neither None nor a name such as"),
        ({"x": (2, None)}, "dimension 2 is neither"),
        ({"y": ("batch",)}, "dims names 'y', which is not an input of Timed; its inputs are x, t, c"),
    ],
)
def test_dims_that_do_not_fit_the_example(dims: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        compile_module(Timed(), (random(2, 3), torch.tensor(3.0)), dims=dims)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_in_bindings() -> None:
    with pytest.raises(ValueError, match="bindings names 'input_', .* Conv2d; its inputs are input$"):
        compile_module(convolution(), (random(1, 4, 8, 8),), {"input_": "latent"})
    call = {"x": random(2, 3), "t": 1.0, "shift": random(3)}
    compile_module(Timed(), call, {"shift": "prompt"})  # one of **others
    with pytest.raises(ValueError, match="its inputs are x, t, c, shift$"):
        compile_module(Timed(), call, {"shifts": "prompt"})


def test_an_example_without_a_tensor() -> None:
    for example in ((), {}, (3,)):
        with pytest.raises(TraceError, match="Conv2d .* without a tensor"):
            compile_module(convolution(), example)


@pytest.mark.parametrize("make", [compile_module, CompiledModule])
def test_an_unknown_level(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="level 'fast' is not one of off, graph, fused, full"):
        make(convolution(), (random(1, 4, 8, 8),) if make is compile_module else None, level="fast")


def test_a_module_in_training_is_refused() -> None:
    x = random(1, 4, 8, 8)
    with pytest.raises(ValueError, match=r"Conv2d is in training mode.*eval\(\)"):
        compile_module(convolution().train(), (x,))
    part = nn.Sequential(convolution(), nn.Dropout()).eval()
    part[1].train()
    with pytest.raises(ValueError, match=r"Sequential.1 is in training mode.*eval\(\)"):
        compile_module(part, (x,))


def test_training_after_compiling_is_eagers_with_gradients() -> None:
    x = random(16, 3)
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)).eval()
    compiled = compile_module(module, (x,))
    compiled(x)
    module.train()
    torch.manual_seed(0)
    found = compiled(x)
    found.sum().backward()
    assert module[0].weight.grad is not None and module[2].num_batches_tracked == 1
    torch.manual_seed(0)
    assert torch.equal(found, module(x))
    module.eval()
    compiled.refresh_weights()
    assert rel_error(compiled(x), module(x)) < TOLERANCE
    assert compiled.report.counters.traces == 1 and compiled.report.counters.fused_steps == 2


def test_a_number_on_the_cpu_is_moved_to_the_other_inputs() -> None:
    x, t = torch.empty(2, 3, device="meta"), torch.tensor(5)
    moved = on_one_device({"x": x, "pair": [t, torch.ones(2)], "t": t, "n": 1})
    assert moved["x"] is x and moved["t"].is_meta and moved["pair"][0].is_meta and moved["n"] == 1
    assert moved["pair"][1].device.type == "cpu"  # a mistake that the module reports
    on_cpu = {"x": torch.ones(2), "t": t}
    assert on_one_device(on_cpu) is on_cpu


@torch.no_grad()
def test_a_number_that_changes_is_traced_a_few_times_only(caplog: pytest.LogCaptureFixture) -> None:
    module, x = Timed(), random(2, 3)
    compiled = compile_module(module, (x, 500.0), {"t": "time"}, {"x": ("batch", None)})
    with caplog.at_level(logging.WARNING, logger="modules.stable_fast"):
        for value in range(10):
            assert rel_error(compiled(x, 1.0 + value), module(x, 1.0 + value)) < TOLERANCE
    counters = compiled.report.counters
    assert counters.traces == 4 and counters.eager_steps == 7
    reason = "t is a number that changes from call to call: give it as a tensor"
    assert caplog.text.count(reason) == 1 and reason in compiled.report.status_line()
    compiled(x, 500.0)
    compiled(x, torch.tensor(3.0))  # the suggested fix
    assert counters.traces == 5 and counters.eager_steps == 7


@torch.no_grad()
def test_moved_weights_are_followed_when_asked_to() -> None:
    module, c = Timed(), random(3)
    compiled = compile_module(module, {"x": random(2, 3), "t": 2.0, "c": c}, {"c": "prompt"}, {"x": ("batch", None)})
    compiled.prepare(c=c)
    compiled(random(2, 3), 2.0)
    module.linear.weight = nn.Parameter(module.linear.weight * 2)
    with pytest.raises(RuntimeError, match=r"linear.weight was rebound to other memory: call refresh_weights\(\)"):
        compiled(random(4, 3), 2.0)
    compiled.refresh_weights()
    for rows in (4, 2):
        assert rel_error(compiled(random(rows, 3), 2.0), module(random(rows, 3), 2.0, c)) < TOLERANCE


@torch.no_grad()
def test_inputs_beyond_those_that_the_module_names() -> None:
    module = Timed()
    call = {"x": random(2, 3), "t": 2.0, "shift": random(3), "more": random(2, 3)}
    compiled = compile_module(module, call)
    for names in (("more", "shift"), ("shift", "more"), ("shift",)):
        others = {name: random(2, 3, seed=len(name)) for name in names}
        assert rel_error(compiled(random(2, 3), 2.0, **others), module(random(2, 3), 2.0, **others)) < TOLERANCE
    assert compiled.report.level == "fused"


class Nameless(nn.Module):
    def forward(self, x: Tensor, /, *others: Tensor, scale: float = 2.0) -> Tensor:
        return (x + sum(others)) * scale


def test_inputs_that_have_no_names() -> None:
    module, xs = Nameless().eval(), [random(2, 3, seed=seed) for seed in range(4)]
    compiled = compile_module(module, xs[:2])
    for call in (xs[:2], xs[1:3], xs[:3], xs[:1]):
        assert rel_error(compiled(*call), module(*call)) < TOLERANCE
    assert rel_error(compiled(*xs, scale=3.0), module(*xs, scale=3.0)) < TOLERANCE
    assert compiled.report.level == "fused" and compiled.report.counters.eager_steps == 0


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class Kinds(nn.Module):
    def forward(self, x: Any) -> Tensor:
        return x.a * 2 if isinstance(x, Pair) else x[0] * (3 if isinstance(x, list) else 4)


def test_the_kind_of_a_container_is_part_of_the_call() -> None:
    module, a, b = Kinds().eval(), random(2), random(2)
    compiled = compile_module(module, ([a, b],))
    for x in ([a, b], (a, b), Pair(a, b)):
        assert torch.equal(compiled(x), module(x))
    assert torch.equal(compile_module(module, ((a, b),))((a, b)), a * 4)  # not the list's program from disk
    assert compiled.report.level == "fused"


class ByLayout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x) * 2)


def test_a_program_that_fails_where_eager_does_not_gives_way_to_it(caplog: pytest.LogCaptureFixture) -> None:
    compiled, x = compile_module(ByLayout().eval(), (random(1, 4, 4, 2),)), random(1, 4, 4, 2, seed=1)
    assert torch.equal(compiled(x), ByLayout()(x)) and torch.equal(compiled(x), ByLayout()(x))
    assert "its program fails: Tensor must have" in compiled.report.status_line()
    assert caplog.text.count("Stable-Fast is off") == 1


LACKS_MEMORY = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("now"), torch.AcceleratorError("now"), KeyboardInterrupt("now"), LACKS_MEMORY],
    ids=lambda error: type(error).__name__,
)
def test_memory_faults_and_interrupts_are_not_tried_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, x = compile_module(Timed(), (random(2, 3), 2.0)), random(2, 3)

    def fails(*args: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(compiled._engine, "run", fails)
    with pytest.raises(type(error)):
        compiled(x, 2.0)
    assert compiled.report.level == "full" and compiled.report.counters.eager_steps == 0


def test_a_compiled_module_inside_another() -> None:
    inner = compile_module(Timed(), (random(2, 3), 2.0))

    class Outer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return inner(x, 2.0) * 2

    with pytest.raises(TraceError, match="Outer cannot be traced: it holds a module that is compiled already"):
        compile_module(Outer().eval(), (random(2, 3),))

    with trace.tracing(), ThreadPoolExecutor(1) as other:  # the other thread traces nothing
        other.submit(inner, random(2, 3), 2.0).result()
    assert rel_error(inner(random(2, 3), 2.0), inner._engine.module(random(2, 3), 2.0)) < TOLERANCE


@torch.no_grad()
def test_a_layer_or_weight_that_is_gone_is_followed() -> None:
    x = random(2, 3)
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
    compiled = compile_module(module, (x,))
    module[0] = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).eval()
    assert rel_error(compiled(x), module(x)) < TOLERANCE
    module[1].bias = None
    assert rel_error(compiled(x), module(x)) < TOLERANCE
    assert compiled.report.level == "fused"
    timed, c = Timed(), random(3)
    prepared = compile_module(timed, {"x": x, "t": 2.0, "c": c}, {"c": "prompt"}, {"x": ("batch", None)})
    prepared.prepare(c=c)
    prepared(x, 2.0)
    timed.linear = nn.Identity()
    with pytest.raises(RuntimeError, match=r"parameter linear.weight is gone: call refresh_weights\(\)"):
        prepared(random(4, 3), 2.0)
    prepared.refresh_weights()
    assert rel_error(prepared(x, 2.0), timed(x, 2.0, c)) < TOLERANCE


class Wrapped(nn.Module):
    """Like PEFT's layers: the weight is the wrapped layer's own, at the same address."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.added = nn.Linear(3, 3)
        self.eval()

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.added(x)


def _replace(module: Any) -> None:
    module[1] = nn.Tanh()


def _wrap(module: Any) -> None:
    module[0] = Wrapped(module[0])


def _reslope(module: Any) -> None:
    module[1].negative_slope = 0.9


def _hook(module: Any) -> None:
    module[0].register_forward_hook(lambda layer, inputs, output: output * 2)


def _unhook(module: Any) -> None:
    module[1]._forward_hooks.clear()


@pytest.mark.parametrize("change", [_replace, _wrap, _reslope, _hook, _unhook])
@torch.no_grad()
def test_a_changed_structure_is_followed_when_asked_to(change: Callable[[Any], None]) -> None:
    module, x = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.1)).eval(), random(2, 3)
    module[1].register_forward_hook(lambda layer, inputs, output: output + 1)
    compiled = compile_module(module, (x,))
    assert rel_error(compiled(x), module(x)) < TOLERANCE
    compiled.refresh_weights()
    compiled(x)
    assert compiled.report.counters.traces == 1
    change(module)
    compiled.refresh_weights()
    assert rel_error(compiled(x), module(x)) < TOLERANCE


class GivesBack(nn.Module):
    """Returns values that later calls still use (from the prompt, from the weights, views of both), and duplicates."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.eval()

    def forward(self, x: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        prompt, weight = self.linear(text), self.scale * 2
        first_rows = (weight.expand(x.shape[0], 3), prompt[:1])
        return x + prompt * weight, prompt, weight, *first_rows, x + 1, x + 1, self.scale[None].exp()


BATCH_DIMS = {"x": ("batch", None), "text": ("batch", None)}


def all_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    return all(torch.allclose(one, other, atol=TOLERANCE) for one, other in zip(found, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("dims", [{}, BATCH_DIMS], ids=["one size", "any batch"])
def test_results_belong_to_the_caller(dims: Mapping[str, Any]) -> None:
    module, x, text = GivesBack(), random(4, 3), random(4, 3, seed=1)
    expected = module(x, text)
    compiled = compile_module(module, {"x": x, "text": text}, {"text": "prompt"}, dims)
    first = compiled(x=x, text=text)
    compiled(x=x, text=3 * text)
    assert all_close(first, expected)  # later calls do not change earlier results
    compiled.prepare(text=text)
    for place in range(len(expected)):
        result = compiled(x=x)
        result[place].add_(100) if result[place].is_contiguous() else None
        others = [index for index in range(len(expected)) if index != place]
        assert all_close([result[index] for index in others], [expected[index] for index in others])
        assert all_close(compiled(x=x), expected)  # writing into a result does not change later calls
    assert compiled.report.level == "fused"


class Draws(nn.Module):
    """Draws random numbers in a given way; the result is 0 if two draws were merged into one."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw
        self.eval()

    def forward(self, x: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.draw(text) - self.draw(text), self.draw(text)


DRAWS = {
    "randn": lambda text: torch.randn(*text.shape),
    "like": torch.rand_like,
    "in place": lambda text: torch.empty_like(text).uniform_(),
    "dropout": lambda text: F.dropout(text, 0.5, training=True),
    "bernoulli": lambda text: torch.bernoulli(text.sigmoid()),
}


in_one_size_and_any = pytest.mark.parametrize("dims", [{}, BATCH_DIMS], ids=["one size", "any batch"])


@torch.no_grad()
def assert_draws_as_eager(way: str, dims: Mapping[str, Any], device: str) -> CompiledModule:
    module = Draws(DRAWS[way]).to(device)
    x, text = random(4, 3).to(device), random(4, 3, seed=1).to(device)
    compiled = compile_module(module, {"x": x, "text": text}, {"text": "prompt"}, dims)
    compiled.prepare(text=text)
    torch.manual_seed(3)
    found = [compiled(x=x) for _ in range(3)]
    torch.manual_seed(3)
    expected = [module(x, text) for _ in range(3)]
    for one, other in zip(sum(found, ()), sum(expected, ()), strict=True):
        assert torch.equal(one, other)
    assert compiled.report.level == "fused"
    return compiled


@in_one_size_and_any
@pytest.mark.parametrize("way", DRAWS)
def test_random_numbers_are_drawn_anew_in_each_call(way: str, dims: Mapping[str, Any]) -> None:
    assert_draws_as_eager(way, dims, "cpu")


class Dropping(nn.Module):
    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        weighted = F.scaled_dot_product_attention(text, text, text)
        return x + F.dropout(weighted, 0.5, training=self.training)


@torch.no_grad()
def test_a_dropout_that_is_off_draws_nothing() -> None:
    x = random(1, 4, 3)
    program = compile_module(Dropping().eval(), (x, x), {"text": "prompt"}).compile(x, x)
    assert len(program.stages["step"]) == 1 and not program.draws


@torch.no_grad()
def test_what_draws_random_numbers_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    captures = FakeCapture()
    x = random(4, 3)
    for module, level in ((Timed(), "full"), (Draws(torch.rand_like), "fused")):
        compiled = CompiledModule(module, capture_on=lambda device: captures)
        compiled(x, x)
        assert compiled.report.level == level
    assert len(captures.graphs) == 1
    assert "it draws random numbers, which a CUDA graph may freeze" in compiled.report.status_line()


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.eval()

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return x + F.scaled_dot_product_attention(self.q(x), self.k(text), self.v(text))


@pytest.fixture
def threads_that_switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_that_switch_often")
def test_threads_get_the_answer_to_their_own_prompt() -> None:
    module, x = Attends(), random(2, 5, 8)
    texts = [random(2, 7, 8, seed=seed) for seed in range(4)]
    compiled = compile_module(module, {"x": x, "text": texts[0]}, {"text": "prompt"})
    with torch.no_grad():
        expected = [module(x, text) for text in texts]

    def wrong(index: int) -> int:
        results = (compiled(x=x, text=texts[index]) for _ in range(200))
        return sum(not torch.allclose(result, expected[index], atol=TOLERANCE) for result in results)

    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(wrong, range(len(texts)))) == [0] * len(texts)


@torch.no_grad()
def test_a_copy_is_a_module_of_its_own() -> None:
    module, x = Attends(), random(1, 5, 8)
    compiled = compile_module(module, {"x": x, "text": x}, {"text": "prompt"})
    expected = compiled(x=x, text=x)
    twin = copy.deepcopy(compiled)
    with ThreadPoolExecutor(1) as other, compiled.turn:  # holding one's lock does not block the other
        assert torch.equal(other.submit(twin, x=x, text=x).result(timeout=60), expected)
