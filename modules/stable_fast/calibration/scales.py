"""The scales of activations that are quantised as a whole, as tensors at fixed addresses, which captured graphs read.

A window of a convolution mixes pixels, so its input has one scale. Until it is known, each run takes the largest value
that was seen so far (observe.py). From the end of the first picture on the scales stay as they are. They are kept on
disk, so that the first picture of a later start needs no such runs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modules.stable_fast.calibration.kept import read_scales, scales_path, write_scales

SCALE = "scale:"  # among the names in a program, before the weight that is multiplied by what has the scale
TINY = 1e-30  # instead of 0, by which values would be divided
CALLS = 20  # until the scales of a network settle, whose caller does not say when a picture ends


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
        self._kept: dict[str, float] | None = None  # what is on disk, once it was read
        self._calls = 0

    def of(self, name: str) -> Tensor:
        """The scale of this name. A new one is looked up on disk."""
        if name not in self._all:
            known = self._read().get(name)
            device = next(self._module.parameters()).device
            self._all[name] = torch.full((1,), known or TINY, dtype=torch.float32, device=device)
            if known is None:
                self._unknown.add(name)
                self._places.add(self._all[name].data_ptr())
        return self._all[name]

    @property
    def are_known(self) -> bool:
        return not self._unknown

    def is_unknown(self, scale: Tensor) -> bool:
        """Whether this tensor is a scale that is still looked for."""
        return scale.data_ptr() in self._places

    def restart(self) -> None:
        """Forgets what was seen for scales that are not known yet."""
        for name in self._unknown:
            self._all[name].fill_(TINY)

    def count_call(self) -> None:
        """Notes that the network was called once more. The scales settle after some calls."""
        self._calls += 1
        if self._calls >= CALLS and not self.are_known:
            self.settle()

    def settle(self) -> bool:
        """Lets the largest values seen be the scales from now on, and keeps them on disk. Returns whether it did.

        Scales from values that were not finite are looked for again.
        """
        found = {name: float(self._all[name]) for name in self._unknown}
        if not all(math.isfinite(scale) for scale in found.values()):
            self.restart()
            return False
        for name in [name for name, scale in found.items() if scale <= TINY]:  # all values were zeros
            self._all[name].fill_(1.0)
            found[name] = 1.0
        self._unknown.clear()
        self._places.clear()
        if found:
            self._kept = self._read() | found
            write_scales(scales_path(self._module, self._precision), self._kept)
        return True

    def _read(self) -> dict[str, float]:
        if self._kept is None:
            self._kept = read_scales(scales_path(self._module, self._precision))
        return self._kept


def is_scale(name: str) -> bool:
    """Whether this name in a program is that of a scale, and not of a weight."""
    return name.startswith(SCALE)
