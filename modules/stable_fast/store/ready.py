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
from modules.stable_fast.store.tuning import launch_all, tuning


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What it took: kernels compiled (or loaded from disk) ahead, and implementations timed by probes."""

    kernels: int = 0
    kernel_seconds: float = 0.0
    probes: int = 0
    probe_seconds: float = 0.0


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
            with CHOICES.asking(launch_all):
                kernels = compile_ahead(run, device)
            compiled = time.perf_counter()
            with tuning(device, tuning_seconds):
                run()
            return Effort(kernels=kernels, kernel_seconds=compiled - began)
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
