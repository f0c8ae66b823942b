"""What happens before a program first runs at a new size, without a GPU: the order of events."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from modules.stable_fast.store import ready, tuning
from modules.stable_fast.store.probe_plan import Survey
from modules.stable_fast.store.probes import Probes

pytestmark = pytest.mark.own_cache


def test_on_a_cpu_nothing_is_made_ready():
    assert ready.make_ready(lambda: pytest.fail("was run"), torch.device("cpu"), 10.0, probes=True) == ready.Effort()


@pytest.fixture
def events(monkeypatch, tmp_path):
    seen = []

    def compile_ahead(run, device, until=None):
        seen.append(("compile", ready.CHOICES.tuner, until is not None))
        if isinstance(run, partial):
            run()
        return 3

    monkeypatch.setattr(ready, "load_choices", lambda device, imported: seen.append(imported))
    monkeypatch.setattr(ready, "load_probes", lambda device: seen.append("load probes"))
    monkeypatch.setattr(tuning, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(ready, "compile_ahead", compile_ahead)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: "as it was")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: seen.append(("random numbers", state)))
    return seen


@pytest.mark.parametrize("probes", [False, True])
def test_kernels_are_compiled_by_known_choices_and_tuned_if_asked(probes, events):
    """Nothing is timed while kernels are only compiled, and nothing is probed beside tuning."""
    run = lambda: events.append(("run", ready.CHOICES.tuner is not None))  # noqa: E731
    how = {"table": "imported table", "probes": probes, "draws": True}
    effort = ready.make_ready(run, torch.device("cuda"), 5.0, **how)
    assert (effort.kernels, effort.probes, effort.probe_seconds) == (3, 0, 0.0) and effort.kernel_seconds > 0
    assert events[:3] == ["imported table", "load probes", ("compile", None, True)]
    # The first of each call and then the others, compiled and then timed.
    assert events[3:] == [("run", True)] * 4 + [("random numbers", "as it was")] and effort.untried == 0
    assert ready.CHOICES.tuner is None


def test_compiling_counts_within_the_time_for_tuning_and_ends_after_half_of_it(events, monkeypatch):
    clock, budgets, ends = [100.0], [], []

    def compile_ahead(run, device, until):
        ends.append(until)
        clock[0] += 12.0
        return 3

    def tuned(device, seconds):
        budgets.append(seconds)
        return nullcontext(tuning.BudgetTuner(seconds, None))

    monkeypatch.setattr(ready, "compile_ahead", compile_ahead)
    monkeypatch.setattr(ready, "tuning", tuned)
    monkeypatch.setattr(ready, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    effort = ready.make_ready(lambda: None, torch.device("cuda"), 30.0)
    assert ends == [115.0] and budgets == [18.0] and effort.kernel_seconds == 12.0


@pytest.mark.parametrize("probes", [False, True])
def test_without_tuning_only_probes_run_the_program(probes, events, monkeypatch):
    """What is probed is compiled with the rest."""
    monkeypatch.setattr(Probes, "time", lambda self, run: (events.append("timed"), run(), 7)[2])
    run = lambda: events.append(("run", ready.CHOICES.tuner))  # noqa: E731
    effort = ready.make_ready(run, torch.device("cuda"), 0.0, table="imported table", probes=probes, draws=True)
    assert events[:3] == ["imported table", "load probes", ("compile", None, False)]
    assert (
        events[-1] == ("random numbers", "as it was") and effort.kernels == 3 and effort.probes == (7 if probes else 0)
    )
    between = [event if event == "timed" else type(event[1]) for event in events[3:-1]]
    assert between == [Survey, "timed", type(None)] * probes
