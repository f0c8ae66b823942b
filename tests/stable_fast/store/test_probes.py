"""Implementations timed at a new size, and kept on disk; timers and the GPU are stand-ins."""

from __future__ import annotations

import logging

import pytest
import torch

from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.store import probes, ready, tables
from modules.stable_fast.store.tables import Measured
from modules.stable_fast.store.tuning import BudgetTuner

pytestmark = pytest.mark.own_cache

GPU = torch.device("cuda")
OP, NEW = "linear_epilogue", (1100, 320)
NEAR = (OP, (1024, 320), {"cublas": 2.0, "small": 1.0, "wide": 1.5})
RIGHT = torch.tensor([1.0, -2.0, 3.0])


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU without shipped tables."""
    monkeypatch.setattr(probes, "environment", lambda device: {"chip": "sm89-128", "gpu": "RTX 4090"})
    monkeypatch.setattr(tables, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return GPU


class Network:
    """One call of an op at each of some keys; results and times by the names of implementations."""

    def __init__(self, milliseconds, *keys, **results):
        self.choices, self.milliseconds, self.timed, self.ran = ImplementationChoices(), milliseconds, [], []
        self.choices.learn([NEAR])
        self.keys = keys or (NEW,)
        self.offered = {name: self.implementation(name, results.get(name, RIGHT)) for name in milliseconds}
        self.now = ""

    def implementation(self, name, result):
        def run(*args):
            self.now = name
            self.ran.append(name)
            if isinstance(result, Exception):
                raise result
            return result

        return run

    def timer(self, call, warm):
        call()
        self.timed.append(self.now)
        return self.milliseconds[self.now]

    def run(self):
        return [self.choices.pick(OP, key, self.offered, "cublas", (RIGHT,)) for key in self.keys]

    def first_call(self, gpu):
        probes.load_probes(gpu, self.choices)
        found = probes.Probes(gpu, choices=self.choices, timer=self.timer)
        found.compile(self.run)
        return found.time(self.run)


def test_the_fastest_probed_runs_from_now_on_and_at_the_next_start(gpu, caplog):
    caplog.set_level(logging.INFO)
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 1.0, "cublaslt_2": 0.1})
    assert network.run() == ["small"]
    assert network.first_call(gpu) == 3 and network.run() == ["wide"]
    assert "Timed 3 implementations of 1 operations at a new size" in caplog.text
    assert network.timed == ["cublas", "small", "wide"]  # not the position in the library's list
    assert network.choices.chosen == {} and network.choices.tuner is None  # so that tuning times them all

    again = Network(dict.fromkeys(network.milliseconds, 1.0))
    assert again.first_call(gpu) == 0 and again.ran == [] and again.run() == ["wide"]


def test_only_what_is_timed_is_compiled(gpu, monkeypatch):
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 1.0, "cublaslt_2": 0.1})
    monkeypatch.setattr(probes, "BudgetTuner", lambda *_: BudgetTuner(0.0, network.timer))
    assert network.first_call(gpu) == 0
    assert network.ran == ["small", "wide"] and network.run() == ["small"]  # libraries have nothing to compile


def test_what_was_not_worth_a_probe_is_not_probed_at_the_next_start(gpu):
    far = (10**8, 320)
    assert Network({"cublas": 2.0, "small": 1.5}, NEW, far).first_call(gpu) == 2
    again = Network({"cublas": 2.0, "small": 0.1}, NEW, far)
    assert again.first_call(gpu) == 0 and again.run() == ["small", "cublas"]


@pytest.mark.parametrize("fast", [Unsupported("no such shape"), torch.OutOfMemoryError("full"), RIGHT * 1.5], ids=repr)
def test_what_fails_or_is_wrong_is_not_chosen(gpu, fast):
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 0.5}, wide=fast)
    network.first_call(gpu)
    assert network.run() == ["small"]
    assert Network({"cublas": 1.0, "small": 1.0, "wide": 1.0}).first_call(gpu) == 0  # the same after a start


def test_probes_of_another_version_of_the_program_are_made_anew(gpu, monkeypatch):
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 1.0})
    network.first_call(gpu)
    monkeypatch.setattr(probes, "source_version", lambda package: "another")
    again = Network({"cublas": 2.0, "small": 1.0, "wide": 1.5})
    assert again.first_call(gpu) == 3 and again.run() == ["small"]


def test_what_another_process_kept_first_holds(gpu):
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 1.0})
    rows = [Measured(OP, NEW, "cublas", {"cublas": 0.5, "small": 1.0})]
    network.run = lambda run=network.run: (probes._keep(rows, gpu), run())[1]
    assert network.first_call(gpu) == 3
    del network.run
    assert network.run() == ["cublas"]


@pytest.mark.parametrize("content", ["", "{", '{"format": 1, "choices": 5}', '{"format": 0}'])
def test_a_damaged_file_is_replaced(gpu, content):
    path = probes.probes_path(gpu)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    assert Network({"cublas": 2.0, "small": 1.5}).first_call(gpu) == 2
    assert Network({"cublas": 2.0, "small": 1.5}).first_call(gpu) == 0


def test_a_row_or_tuning_goes_before_a_probe(gpu):
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 1.0})
    network.first_call(gpu)
    network.choices.tuner = lambda *_: "cublas"
    assert network.run() == ["cublas"]
    network.choices.tuner = None
    assert network.choices.chosen == {(OP, NEW): "cublas"} and network.run() == ["cublas"]


def test_times_on_cards_of_other_classes_tell_what_to_probe(gpu, tmp_path):
    shipped = tmp_path / "shipped"
    tables.write_choices(shipped / "sm90-132.json", {}, [Measured(OP, NEAR[1], "cublas", {"cublas": 2.0, "tma": 1.0})])
    network = Network({"cublas": 2.0, "small": 1.5, "wide": 1.0})
    network.choices.learn([])
    assert network.run() == ["cublas"] and network.first_call(gpu) == 3 and network.run() == ["wide"]
    assert network.choices.predict(OP, (1200, 320), network.offered) == "wide"  # probes tell of near shapes then


@pytest.mark.gpu
def test_a_real_op_is_probed_and_kept():
    device = torch.device("cuda")
    choices = probes.CHOICES
    before = {name: dict(getattr(choices, name)) for name in ("chosen", "imported", "measured", "probed")}
    x, weight = (torch.randn(size, device=device).half() for size in ((2, 3001, 320), (640, 320)))
    run = lambda: torch.ops.lightdiffusion.linear_epilogue(x, weight, None, None, "none")  # noqa: E731
    for name in before:
        getattr(choices, name).clear()
    choices.predicted.clear()
    try:
        assert ready.make_ready(run, device, 0.0, probes=True).probes > 1 and probes.probes_path(device).is_file()
        expected = torch.nn.functional.linear(x.float(), weight.float()).half()
        torch.testing.assert_close(run(), expected, atol=0.1, rtol=0.01)
        assert ready.make_ready(run, device, 0.0, probes=True).probes == 0
    finally:
        for name, value in before.items():
            getattr(choices, name).clear()
            getattr(choices, name).update(value)
        choices.predicted.clear()
