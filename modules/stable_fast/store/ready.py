"""What happens before a program first runs on a GPU at a new size: choices are read, kernels compiled and timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.launch import compile_ahead
from modules.stable_fast.store.probes import Probes, load_probes
from modules.stable_fast.store.tables import Table, load_choices
from modules.stable_fast.store.tuning import launch_all, tuning


def make_ready(
    run: Callable[[], object],
    device: torch.device,
    tuning_seconds: float,
    *,
    table: Table | None = None,
    probes: bool = False,
    draws: bool = False,
) -> int:
    """Before a program first runs on a GPU: reads choices, compiles kernels and times ops without a choice.

    The choices of an imported `table` go before others. To do so it calls `run`, uncaptured. Any results of `run` are
    meaningless, and random numbers that it `draws` are drawn again later. Without a GPU, `run` is not called. Without
    time for tuning, `probes` times a few implementations. Returns how many of these.
    """
    if device.type != "cuda":
        return 0
    load_choices(device, imported=table)
    load_probes(device)
    with torch.random.fork_rng(devices=[device], enabled=draws):
        if tuning_seconds > 0:
            with CHOICES.asking(launch_all):
                compile_ahead(run, device)
            with tuning(device, tuning_seconds):
                run()
            return 0
        if not probes:
            compile_ahead(run, device)
            return 0
        found = Probes(device)
        compile_ahead(partial(found.compile, run), device)
        return found.time(run)
