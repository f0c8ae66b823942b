"""Runs the loop of every training stage: step, report, save, until the stage's time is up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.saved_state import StateFile, random_state, restore_random_state
from tools.demo_model.training.loop.trainer import Trainer

LOG_SECONDS = 5.0


class Progress:
    """Reports every few seconds: a bar on a terminal, plain lines in a log."""

    def __init__(self, stage: str) -> None:
        self._stage, self._last = stage, time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= LOG_SECONDS

    def show(self, fraction: float, text: str) -> None:
        self._last = time.monotonic()
        filled = min(int(fraction * 30), 30)
        bar = "#" * filled + "." * (30 - filled)
        end = "\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"{self._stage:12s} [{bar}] {fraction:4.0%} {text}{end}")
        sys.stderr.flush()


def run_stage(
    name: str,
    trainer: Trainer,
    budget: Budget,
    state: StateFile,
    saved: dict[str, object] | None,
    batch: Callable[[float, int], Tensor],
    *,
    describe: Callable[[float], str] = "loss {:.4f}".format,
    every: Callable[[float], None] | None = None,
) -> None:
    """Calls `batch(fraction, step)` until the time is up; saves, reports and checks; leaves averaged weights."""
    device = trainer.masters[0].device
    step = 0
    if saved is not None:
        trainer.load_state_dict(saved["trainer"])  # type: ignore[arg-type]
        restore_random_state(saved["random"], device)  # type: ignore[arg-type]
        step = int(saved["step"])  # type: ignore[call-overload]
        budget.resume(*saved["clock"])  # type: ignore[misc]
    progress = Progress(name)
    loss = torch.zeros(())
    while not budget.over:
        fraction = budget.fraction
        trainer.set_rate(fraction, step)
        loss = batch(fraction, step)
        step += 1
        if progress.due or step == 1:
            value = float(loss)
            trainer.check(value)
            progress.show(fraction, f"{budget.clock.elapsed:.0f}s step {step} {describe(value)}")
        if state.due:
            clock = (budget.clock.elapsed, budget.start)
            random = random_state(device)
            state.save({"trainer": trainer.state_dict(), "random": random, "step": step, "clock": clock})
        if every is not None:
            every(fraction)
    progress.show(1.0, f"{budget.clock.elapsed:.0f}s step {step} {describe(float(loss))}")
    trainer.finish()
