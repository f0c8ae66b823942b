"""Tuning: budget, winners, refused implementations, and results saved on disk; timers and clocks are fake."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.kernels.eight_bits.quantize_rows import quantize_rows_reference
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.timing import as_read
from modules.stable_fast.kernels.triton_import import TritonError
from modules.stable_fast.store import tuning
from modules.stable_fast.store.tables import Measured
from tests.stable_fast.kernels.eight_bits.operands import of_kinds

pytestmark = pytest.mark.own_cache


class Clock:
    """A clock that advances only with measurements."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make_tuner(milliseconds, *, budget=100.0, cost=1.0):
    """Makes a tuner that looks up times by the label of a result; each timing costs `cost` seconds."""
    clock, timed = Clock(), []

    def timer(call, warm):
        name = call().label
        timed.append(name)
        clock.now += cost
        return milliseconds[name]

    return tuning.BudgetTuner(budget, timer, clock), timed


def labelled(name):
    result = torch.ones(3)
    result.label = name
    return result


def table(*names):
    return {name: (lambda *args, name=name: labelled(name)) for name in names}


def test_the_fastest_wins():
    tuner, timed = make_tuner({"a": 3.0, "b": 1.0, "c": 2.0})
    assert tuner("op", (1, 2), table("a", "b", "c"), "c", (None,)) == "b"
    assert timed == ["c", "a", "b"]  # the default is timed first
    assert tuner.measured == [Measured("op", (1, 2), "b", {"c": 2.0, "a": 3.0, "b": 1.0})]


def test_a_single_implementation_costs_no_time():
    tuner, timed = make_tuner({"a": 1.0})
    assert tuner("op", (1,), table("a"), "a", (None,)) == "a" and timed == [] and tuner.measured == []


def test_the_budget_ends_timing_within_and_between_ops():
    tuner, timed = make_tuner({"a": 3.0, "b": 1.0, "c": 2.0}, budget=2.0)
    assert tuner("op", (1,), table("a", "b", "c"), "c", (None,)) == "c"  # b would have won, but time was up
    assert tuner("op", (2,), table("a", "b", "c"), "c", (None,)) is None
    assert timed == ["c", "a"] and tuner.untried == 1 + 3


@pytest.mark.parametrize("error", [
    Unsupported("no engine"), TritonError("too little shared memory"), RuntimeError("PassManager::run failed"),
    torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture"),
], ids=repr)  # fmt: skip
def test_an_implementation_that_does_not_serve_the_shape_is_passed_over(error):
    def refuses(*args):
        raise error

    tuner, _ = make_tuner({"a": 3.0})
    assert tuner("op", (1,), table("a") | {"b": refuses}, "a", (None,)) == "a"
    assert tuner.measured[0].milliseconds == {"a": 3.0}
    assert tuner("op", (2,), {"b": refuses, "c": refuses}, "b", (None,)) == "b"  # nothing ran: the default


def test_a_contest_that_memory_did_not_suffice_for_is_not_remembered():
    def hungry(*args):
        raise torch.OutOfMemoryError("full")

    tuner, _ = make_tuner({"a": 3.0, "c": 2.0})
    assert tuner("op", (1,), table("a", "c") | {"b": hungry}, "a", (None,)) == "c"
    assert tuner.measured == []


def test_a_gpu_that_broke_in_the_contest_is_not_hidden(monkeypatch):
    def broken():
        raise torch.AcceleratorError("CUDA error: misaligned address")

    monkeypatch.setattr(tuning, "raise_if_broken", broken)
    tuner, _ = make_tuner({"a": 3.0})
    refuses = {"b": lambda *args: (_ for _ in ()).throw(RuntimeError("library failed"))}
    with pytest.raises(torch.AcceleratorError, match="misaligned"):
        tuner("op", (1,), table("a") | refuses, "a", (None,))


def test_a_broken_implementation_is_not_hidden():
    def broken(*args):
        raise ValueError("a bug")

    tuner, _ = make_tuner({})
    with pytest.raises(ValueError, match="a bug"):
        tuner("op", (1,), {"b": broken, "c": broken}, "b", (None,))


def test_all_own_kernels_are_compiled_before_they_are_timed():
    """Otherwise the budget goes to the compiler, which compiles one kernel after the other while they are timed."""
    choices, launched = ImplementationChoices(), []

    def refuse(*args):
        raise Unsupported("too large")

    candidates = {name: lambda name=name: launched.append(name) for name in ("cublas", "cudnn_graph_1", "triton_8x8")}

    def run():
        for key in ((1,), (2,)):
            choices.pick("op", key, {"small": refuse, **candidates}, "cublas", ())

    choices.chosen["op", (1,)] = "cublas"
    tuning.launch_in_order(run, choices)
    assert launched == ["triton_8x8"] and choices.chosen == {("op", (1,)): "cublas"} and choices.tuner is None


def test_the_first_of_each_call_are_compiled_before_any_others():
    choices, launched = ImplementationChoices(), []
    offered = {name: lambda key, name=name: launched.append((key, name)) for name in "abcdef"}
    choices.learn([("op", (1000,), {"a": 6.0, "b": 5.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 1.0})])
    tuning.launch_in_order(lambda: [choices.pick("op", (key,), offered, "a", (key,)) for key in (999, 1001)], choices)
    assert launched == [(key, name) for names in ("afed", "cb") for key in (999, 1001) for name in names]


def test_a_call_made_again_goes_on_where_it_ended():
    tuner, timed = make_tuner({"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.5}, budget=3.0)
    tuner.most, names = 2, table("a", "b", "c", "d")
    assert tuner("op", (1,), names, "a", (None,)) == "b" == tuner("op", (1,), names, "a", (None,))
    tuner.most = None
    assert tuner("op", (1,), names, "a", (None,)) == "b"  # d would have won, but time was up after c
    assert timed == ["a", "b", "c"] and tuner.untried == 1
    assert [row.milliseconds for row in tuner.measured] == [{"a": 3.0, "b": 1.0, "c": 2.0}]


RIGHT = torch.tensor([1.0, -2.0, 3.0])


@pytest.mark.parametrize(("result", "winner"), [
    (RIGHT + 0.01, "fast"), (RIGHT + 0.1, "default"), (RIGHT * torch.nan, "default"), (RIGHT[[1, 0, 2]], "default"),
], ids=["rounded", "off", "not finite", "swapped"])  # fmt: skip
@pytest.mark.parametrize("as_pair", [False, True])
def test_a_fast_implementation_with_a_wrong_result_does_not_win(result, winner, as_pair, caplog):
    def returning(value):
        return lambda *args: (RIGHT, value) if as_pair else value

    seconds = iter([3.0, 1.0, 2.0])
    tuner = tuning.BudgetTuner(100.0, lambda call, warm: (call(), next(seconds))[1], Clock())
    implementations = {"default": returning(RIGHT), "fast": returning(result), "slow": returning(RIGHT)}
    assert tuner("op", (1,), implementations, "default", (RIGHT,)) == {"default": "slow"}.get(winner, winner)
    assert ("wrong result" in caplog.text) == (winner == "default")


def test_a_result_that_is_nowhere_finite_tells_nothing_so_nothing_is_chosen_or_kept(caplog):
    for default in (RIGHT * torch.nan, RIGHT * torch.inf):
        seconds = iter([3.0, 1.0])
        tuner = tuning.BudgetTuner(100.0, lambda call, warm, seconds=seconds: next(seconds), Clock())
        implementations = {"a": lambda *_, default=default: default, "b": lambda *_: RIGHT}
        assert tuner("op", (1,), implementations, "a", (None,)) == "a" and tuner.measured == []
    assert caplog.text.count("gives no finite result") == 2


def test_where_the_default_is_not_finite_others_may_differ_and_nowhere_else():
    some = torch.tensor([1.0, torch.inf, torch.nan, 2.0])
    assert tuning.agree(torch.tensor([1.0, 5.0, 7.0, 2.01]), some)
    assert not tuning.agree(torch.tensor([1.1, torch.inf, torch.nan, 2.0]), some)
    for bad in (torch.inf, -torch.inf, torch.nan):
        assert not tuning.agree(torch.tensor([1.0, torch.inf, torch.nan, bad]), some)
        assert not tuning.agree(RIGHT * bad, RIGHT)
    assert not tuning.agree((RIGHT, RIGHT * torch.nan), (RIGHT, RIGHT)) and tuning.agree(RIGHT, RIGHT)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int8], ids=str)
def test_eight_bits_agree_if_each_is_a_neighbour(kind):
    """A value between two numbers may be rounded to either."""
    for largest in (448.0, 256.0, 127.0, 20.0):
        numbers = torch.arange(0, min(largest, torch.finfo(kind).max if kind.is_floating_point else 127.0) + 1)
        right = numbers.to(kind)
        bits = right.view(torch.int8)  # in both kinds the next bits are the next positive number
        assert tuning.agree(torch.cat([bits[:1], bits[1:] - 1]).view(kind), right)
        assert not tuning.agree(bits.flip(0).view(kind), right)
        assert not tuning.agree(torch.zeros_like(bits).view(kind), right)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.float16], ids=str)
def test_an_operand_of_any_dtype_can_be_read_into_the_cache(dtype):
    """PyTorch finds no maximum of e4m3, and the error would pass for a refusal by every implementation."""
    x = torch.ones(2, 3, 4, 5).to(dtype, memory_format=torch.channels_last)
    read = as_read(x)
    assert read is not None and read.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert read.amax().numel() == 1 and read.numel() * read.itemsize == x.numel() * x.itemsize
    assert as_read(None) is None


@pytest.mark.gpu
@of_kinds
def test_tuning_products_of_eight_bits(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning.CHOICES, "chosen", {})
    (q, rows), (weight, columns) = (quantize_rows_reference(torch.randn(256, 128, device="cuda"), kind) for _ in "xw")
    with tuning.tuning(torch.device("cuda"), 60.0, folder=tmp_path) as tuner:
        args = (q, rows, weight, columns.view(-1), None, None, "none", torch.float16)
        assert torch.ops.lightdiffusion.linear_eight(*args).isfinite().all()
    assert len(tuner.measured) == 1 and len(tuner.measured[0].milliseconds) > 1


@pytest.mark.gpu
def test_tuning_a_real_op(tmp_path):
    choices_before = dict(tuning.CHOICES.chosen)
    x, weight = torch.randn(2, 64, 64, device="cuda").half(), torch.randn(128, 64, device="cuda").half()
    tuning.CHOICES.chosen.clear()
    with tuning.tuning(torch.device("cuda"), 60.0, folder=tmp_path) as tuner:
        y = torch.ops.lightdiffusion.linear_geglu(x, weight, None)
    assert len(tuner.measured) == 1 and len(tuner.measured[0].milliseconds) > 1
    assert torch.isfinite(y).all() and len(list(tmp_path.iterdir())) == 1
    tuning.CHOICES.chosen.clear()
    tuning.CHOICES.chosen.update(choices_before)
