"""The scales of activations that are quantised as a whole, as tensors at fixed addresses, which captured graphs read.

A window of a convolution mixes pixels, so its input has one scale. While it is unknown, it follows the largest value
seen so far (observe.py). From the end of the first picture on the scales stay as they are. They are kept on disk, so
that a later start needs no such runs. A picture with more noise or less than all before lets them grow once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modules.stable_fast.calibration.kept import Kept, read_scales, scales_path, write_scales

SCALE = "scale:"  # among the names in a program, before the weight that is multiplied by what has the scale
TINY = 1e-30  # instead of 0, by which values would be divided
CALLS = 20  # until the scales of a network settle, whose caller does not say when a picture ends
BEYOND = 0.05  # of the largest timestep: so far may a picture go beyond those seen


class Scales:
    """The scales of one network, for one kind of numbers. A scale is what the number 1 stands for.

    `precision` is the network's precision, under which scales are kept on disk.
    """

    def __init__(self, module: nn.Module, precision: str) -> None:
        self._module = module
        self._precision = precision
        self._all: dict[str, Tensor] = {}
        self._unknown: set[str] = set()
        self._places: set[int] = set()  # addresses of unknown scales
        self._kept: Kept | None = None  # what is on disk, once it was read
        self._timesteps: tuple[float, ...] = ()  # the first and the last of the picture in progress
        self._calls = 0

    def of(self, name: str) -> Tensor:
        """The scale of this name. A new one is looked up on disk."""
        if name not in self._all:
            kept = self._read()
            device = next(self._module.parameters()).device
            self._all[name] = torch.full((1,), kept.scales.get(name, TINY), dtype=torch.float32, device=device)
            if name not in kept.scales or not self._covers():
                self._look_for(name)
        return self._all[name]

    def _look_for(self, name: str) -> None:
        self._unknown.add(name)
        self._places.add(self._all[name].data_ptr())

    @property
    def are_known(self) -> bool:
        return not self._unknown

    def is_unknown(self, scale: Tensor) -> bool:
        """Whether this tensor is a scale that is still looked for."""
        return scale.data_ptr() in self._places

    def expect(self, timesteps: Sequence[float]) -> None:
        """Takes note of the next picture's timesteps. The scales may grow if these go beyond those seen."""
        self._timesteps = (min(timesteps), max(timesteps)) if timesteps else ()
        if self._all and not self._covers():
            for name in self._all:
                self._look_for(name)

    def _covers(self) -> bool:
        seen, now = self._read().timesteps, self._timesteps
        return not now or (bool(seen) and now[0] >= seen[0] - BEYOND * seen[1] and now[1] <= (1 + BEYOND) * seen[1])

    def restart(self) -> None:
        """Forgets what was seen for scales that are not known yet."""
        self._put_back({})

    @contextmanager
    def untouched_by(self, run: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """Gives `run`, each call of which starts with the scales of now. At the end, these hold again.

        Kernels that are only compiled give unknown scales any value, with which nothing could be timed and compared.
        """
        seen = {name: self._all[name].clone() for name in self._unknown}

        def run_afresh() -> None:
            self._put_back(seen)
            run()

        try:
            yield run_afresh
        finally:
            self._put_back(seen)

    def _put_back(self, seen: Mapping[str, Tensor]) -> None:
        for name in self._unknown:
            if name in seen:
                self._all[name].copy_(seen[name])
            else:
                self._all[name].fill_(self._read().scales.get(name, TINY))

    def count_call(self) -> None:
        """Notes that the network is called once more. The scales settle after some calls."""
        self._calls += 1
        if self._calls > CALLS and not self.are_known:
            self.settle()

    @property
    def error(self) -> float | None:
        """The error that was kept with the scales; None if it is not known, or nothing has a scale."""
        return None if self._kept is None else self._kept.error

    def settle(self, error: float | None = None) -> None:
        """Lets the largest values seen be the scales from now on, and keeps them on disk, with the last step's error.

        Scales from values that were not finite are looked for again.
        """
        found = {name: float(self._all[name]) for name in self._unknown}
        if not all(math.isfinite(scale) for scale in found.values()):
            return self.restart()
        for name in [name for name, scale in found.items() if scale <= TINY]:  # all values were zeros
            self._all[name].fill_(1.0)
            found[name] = 1.0
        self._unknown.clear()
        self._places.clear()
        if found:
            kept = self._read()
            timesteps = (*kept.timesteps, *self._timesteps)
            seen = (min(timesteps), max(timesteps)) if timesteps else ()
            self._kept = Kept({**kept.scales, **found}, seen, error)
            write_scales(scales_path(self._module, self._precision), self._kept)

    def _read(self) -> Kept:
        if self._kept is None:
            self._kept = read_scales(scales_path(self._module, self._precision))
        return self._kept


def is_scale(name: str) -> bool:
    """Whether this name in a program is that of a scale, and not of a weight."""
    return name.startswith(SCALE)
