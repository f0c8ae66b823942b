"""`compile_pipeline`: one call that accelerates all networks of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.stable_fast.config import Level, StableFastConfig, level_in_force
from modules.stable_fast.pipelines.conditions import is_own_forward
from modules.stable_fast.pipelines.front import Front, Picture
from modules.stable_fast.pipelines.moments import Part, parts_of
from modules.stable_fast.pipelines.repeated_rows import noticing_repeated_rows
from modules.stable_fast.report import Report
from modules.stable_fast.runtime.capture_table import SharedCapture
from modules.stable_fast.store.exchange import table_for

HANDLE = "_stable_fast"  # the attribute of the pipeline's class that holds its CompiledPipeline


class CompiledPipeline:
    """What `compile_pipeline` put before the networks of a pipeline. The pipeline itself is used as before."""

    def __init__(self, pipe: Any, config: StableFastConfig) -> None:
        self._pipe = pipe
        self._config = config
        self._fronts: dict[str, Front] = {}
        self._eager: dict[str, str] = {}  # networks that were never given a front, with the reason
        self._picture, self._capture_on = Picture(), SharedCapture()
        self._class = type(pipe)
        pipe.__class__ = with_looks(self._class, self)
        self.attach()

    def attach(self) -> None:
        """Puts a front before each network that has none. Called before each picture, since components may change."""
        parts = list(networks_of(self._pipe))
        self._let_go({id(part.network) for part in parts})
        for part in parts:
            own = vars(part.network).get("forward")
            if not isinstance(own, Front) and is_own_forward(own, part.network):
                self._eager.pop(part.name, None)
                self._fronts[part.name] = Front(part, self._config, self._picture, self._capture_on)
                self._fronts[part.name].attach()
            elif not isinstance(own, Front) and part.name not in self._fronts:
                self._eager[part.name] = "another program has replaced its forward, for example to offload it"

    def _let_go(self, kept: set[int]) -> None:
        """Takes the fronts off networks that are no longer in the pipeline."""
        for name in [name for name, front in self._fronts.items() if id(front.network) not in kept]:
            self._fronts.pop(name).remove()

    @contextmanager
    def picture(self) -> Iterator[None]:
        """One picture, before which changed components are noticed."""
        self.attach()
        with self._picture, noticing_repeated_rows():
            yield

    def remove(self) -> None:
        """Makes the pipeline what it was, and frees all programs."""
        for front in self._fronts.values():
            front.remove()
        self._fronts.clear()
        if getattr(type(self._pipe), HANDLE, None) is self:
            self._pipe.__class__ = self._class

    @property
    def report(self) -> Report:
        """One report with a part for each network, by its name in the pipeline, such as `unet` or `vae.decoder`."""
        level, reason = level_in_force(self._config.level)
        parts = {name: front.report for name, front in self._fronts.items()}
        for name, why in self._eager.items():
            parts[name] = Report(asked=self._config.level, level=Level.OFF, reason=why)
        return Report(asked=self._config.level, level=level, reason=reason, parts=parts)


def compile_pipeline(
    pipe: Any, level: str = "full", *, table: Path | str | None = None, precision: str = "off"
) -> CompiledPipeline:
    """Accelerates every network of a diffusers pipeline. `pipe(...)` is called as before.

    Each network is compiled at its first call. One that cannot be compiled runs eagerly; `report` says why. Changes of
    weights, LoRA, processors and components are noticed at the next picture. A pipeline compiled before starts over.
    `table` is a file of `--stable-fast-export`, with the fastest kernels on this card. With the `precision`
    "fp16-accumulate", products in fp16 may be summed in fp16, for GeForce cards, in the networks that run in each step.
    Raises ValueError for an unknown level or precision, or if `pipe` has no components; OptionsError for a table of
    another card, or a file that is none.
    """
    if not isinstance(getattr(pipe, "components", None), Mapping):
        raise ValueError(f"{type(pipe).__name__} is no pipeline of diffusers: compile_module takes a single network")
    weights = (weight for part in networks_of(pipe) for weight in part.network.parameters())
    device = next((weight.device for weight in weights), torch.device("cpu"))
    choices = table_for(table, device) if table is not None else None
    config = StableFastConfig(level=level, table=choices, precision=precision)
    earlier = getattr(type(pipe), HANDLE, None)
    if isinstance(earlier, CompiledPipeline):
        earlier.remove()
    return CompiledPipeline(pipe, config)


def networks_of(pipe: Any) -> Iterator[Part]:
    """The networks of a pipeline's components."""
    for name, component in pipe.components.items():
        if isinstance(component, nn.Module):
            yield from parts_of(name, component)


def with_looks(cls: Any, compiled: CompiledPipeline) -> type[Any]:
    """The pipeline's class under its own name, whose calls look for changes first. Copies have the class itself."""

    @wraps(cls.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with compiled.picture():
            return cls.__call__(self, *args, **kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        function, (_, *args), *rest = cls.__reduce_ex__(self, protocol)
        return function, (cls, *args), *rest

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    members: dict[str, Any] = {**names, "__call__": call, "__reduce_ex__": reduce, HANDLE: compiled}
    return type(cls.__name__, (cls,), members)
