"""What happens before a program first runs on a GPU at a new size: choices are read, kernels compiled and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.launch import compile_ahead
from modules.stable_fast.store.probes import Probes, load_probes
from modules.stable_fast.store.tables import Table, load_choices
from modules.stable_fast.store.tuning import launch_in_order, tuning
from modules.stable_fast.store.tuning_order import FIRST


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What it took: kernels compiled (or loaded from disk) ahead, and implementations timed by probes."""

    kernels: int = 0
    kernel_seconds: float = 0.0
    probes: int = 0
    probe_seconds: float = 0.0
    untried: int = 0  # implementations that tuning had no time for


def make_ready(
    run: Callable[[], object],
    device: torch.device,
    tuning_seconds: float,
    *,
    table: Table | None = None,
    probes: bool = False,
    draws: bool = False,
) -> Effort:
    """Before a program first runs on a GPU: reads choices, compiles kernels and times ops without a choice.

    The choices of an imported `table` go before others. To do so it calls `run`, uncaptured. Any results of `run` are
    meaningless, and random numbers that it `draws` are drawn again later. Without a GPU, `run` is not called. Without
    time for tuning, `probes` times a few implementations.
    """
    if device.type != "cuda":
        return Effort()
    load_choices(device, imported=table)
    load_probes(device)
    with torch.random.fork_rng(devices=[device], enabled=draws):
        began = time.perf_counter()
        if tuning_seconds > 0:
            return tune(run, device, tuning_seconds)
        found = Probes(device) if probes else None
        kernels = compile_ahead(run if found is None else partial(found.compile, run), device)
        compiled = time.perf_counter()
        timed = 0 if found is None else found.time(run)
        return Effort(
            kernels=kernels,
            kernel_seconds=compiled - began,
            probes=timed,
            probe_seconds=time.perf_counter() - compiled,
        )


def tune(run: Callable[[], object], device: torch.device, seconds: float) -> Effort:
    """Compiles and times all implementations in this time: the most promising of each call before any others.

    Compiling ends after half of the time. A kernel that is missing then is compiled when its turn comes.
    """
    began = time.perf_counter()
    kernels = compile_ahead(partial(launch_in_order, run), device, until=began + seconds / 2)
    compiled = time.perf_counter() - began
    with tuning(device, seconds - compiled) as tuner:
        tuner.most = FIRST
        with CHOICES.asking(tuner):
            run()
        tuner.most = None
        run()
    return Effort(kernels=kernels, kernel_seconds=compiled, untried=tuner.untried)
