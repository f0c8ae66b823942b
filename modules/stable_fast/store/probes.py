"""Times a few implementations at a size that is new on this GPU, and keeps the results beside those of tuning.

Tuning goes before probes, and times again what was only probed. Probes are neither exported nor shipped: they say
nothing of the implementations that were left out. They hold as long as saved graphs, until the program changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, ImplementationChoices, Implementations
from modules.stable_fast.kernels.near_shapes import Times
from modules.stable_fast.kernels.timing import GpuTimer
from modules.stable_fast.store import tables
from modules.stable_fast.store.cache import cache_folder, replace_file, source_version, told_once
from modules.stable_fast.store.probe_plan import Call, Plan, Survey, plan_probes
from modules.stable_fast.store.tables import Measured, Table, environment, read_table_file, slug, table_text
from modules.stable_fast.store.tuning import BudgetTuner, Timer, launch_own

log = logging.getLogger(__name__)

SECONDS = 3.0  # for timing all probes of a new size


class Prober:
    """Stands in for a tuner: times what is planned, within the time limit."""

    def __init__(self, plan: Plan, timer: Timer) -> None:
        self.tuner = BudgetTuner(SECONDS, timer)
        self._plan = plan

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str | None:
        names = [name for name in self._plan.get((op, key), ()) if name in implementations]
        return self.tuner(op, key, {name: implementations[name] for name in names}, default, args) if names else None


class Probes:
    """What is timed at a new size of a program: planned while its kernels are compiled, then timed."""

    def __init__(
        self, device: torch.device, *, choices: ImplementationChoices = CHOICES, timer: Timer | None = None
    ) -> None:
        self._device, self._choices, self._timer = device, choices, timer or GpuTimer()
        self._survey, self._plan = Survey(choices), dict[Call, tuple[str, ...]]()

    def compile(self, run: Callable[[], object]) -> None:
        """Runs it without launches, and again for what is planned, so that all kernels are compiled side by side."""
        with self._choices.asking(self._survey):
            run()
        if self._survey.calls:
            self._plan = plan_probes(self._survey.calls, self._choices.measured, _elsewhere())
        if self._plan:
            with self._choices.asking(self._launch_planned):
                run()

    def _launch_planned(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        """Stands in for a tuner: launches our own kernels that are planned, and chooses the default."""
        names = self._plan.get((op, key), ())
        launch_own({name: implementations[name] for name in names if name in implementations}, args)
        return default

    def time(self, run: Callable[[], object]) -> int:
        """Times what is planned while `run` makes the calls, and keeps it. Returns how many were timed."""
        if not self._plan:
            return 0
        began, prober = time.perf_counter(), Prober(self._plan, self._timer)
        try:
            with self._choices.asking(prober):
                run()
        finally:
            torch.cuda.empty_cache()  # the private pools of the timing graphs
        measured = {(row.op, row.key): row for row in prober.tuner.measured}
        # What was not worth a probe is kept too, so that the next start probes nothing.
        rows = [measured.get(call) or Measured(*call, found.likely) for call, found in self._survey.calls.items()]
        self._choices.learn_probes(_learned(_keep(rows, self._device)))
        timed = sum(len(row.milliseconds) for row in measured.values())
        log.info(
            "Timed %d implementations of %d operations at a new size, in %.1f s.",
            timed, len(measured), time.perf_counter() - began,
        )  # fmt: skip
        return timed


def load_probes(device: torch.device, choices: ImplementationChoices = CHOICES) -> None:
    """Reads what was probed on this GPU by this version of the program."""
    choices.learn_probes(_learned(_read(device)))


def _learned(rows: Iterable[Measured]) -> list[tuple[str, ChoiceKey, Times]]:
    return [(row.op, row.key, row.of_right_results()) for row in rows]


def _elsewhere() -> dict[str, dict[ChoiceKey, Times]]:
    """The times in all shipped tables, whichever card they are of."""
    times: dict[str, dict[ChoiceKey, Times]] = {}
    for path in sorted(tables.SHIPPED.glob("*.json")):
        for row in tables.read_choices(path):
            times.setdefault(row.op, {}).setdefault(row.key, row.of_right_results())
    return times


def probes_path(device: torch.device) -> Path:
    return cache_folder() / f"probed-{slug('-'.join(environment(device).values()))}.json"


def _described(device: torch.device) -> dict[str, str]:
    return {**environment(device), "sources": source_version("modules")}


def _read(device: torch.device) -> list[Measured]:
    table = read_table_file(probes_path(device))
    return list(table.choices) if table is not None and table.environment == _described(device) else []


def _keep(rows: Iterable[Measured], device: torch.device) -> list[Measured]:
    """Adds to the file. What another process has kept meanwhile holds, so that all choose the same."""
    merged = {(row.op, row.key): row for row in (*rows, *_read(device))}
    kept = tuple(merged.values())
    with told_once():
        replace_file(probes_path(device), table_text(Table(_described(device), kept)))
    return list(kept)
