"""Tells about settings that have no effect, or hardly the intended one."""

from __future__ import annotations

import logging

from modules.generation.options import GenerationOptions, ResolvedOptions
from modules.generation.pass_settings import settings_of_passes
from modules.loader.detection.model_spec import ModelSpec
from modules.sampling.names import resolve_sampler, uses_unconditional

log = logging.getLogger(__name__)

HIGHEST_CFG_PP = 2.0


def tell_overdone(options: GenerationOptions) -> None:
    """Warns about a guidance scale that is almost certainly a mistake."""
    if uses_unconditional(resolve_sampler(options.sampler).sampler) and options.cfg > HIGHEST_CFG_PP:
        log.warning("CFG++ samplers need a cfg from 0 to about 1; %g is too much.", options.cfg)


def tell_skipping(options: GenerationOptions) -> None:
    """Warns about skipped steps without Stable-Fast."""
    if options.stable_fast_skip and options.stable_fast == "off":
        log.warning("--stable-fast-skip has no effect without Stable-Fast: give --stable-fast too.")


def tell_sizes(options: GenerationOptions, spec: ModelSpec) -> None:
    """Warns about sizes given to a checkpoint that does not read them."""
    given = [name for name, value in (("original size", options.original_size), ("crop", options.crop)) if value]
    if given and spec.unet.vector_dim is None:
        names = " and ".join(given).capitalize()
        log.warning("%s: no effect with a checkpoint of %s; only SDXL is told of sizes.", names, spec.family)


def tell_refiner(options: ResolvedOptions, steps: int) -> None:
    """Warns about a refiner that makes none of the last pass's `steps`, and about what it works without."""
    settings = settings_of_passes(options)[-1]
    if settings.refined_from(steps) == steps:
        start = options.refiner_start
        log.warning("With the start %g, the refiner makes none of the %d steps: give a lower start.", start, steps)
    elif options.loras or options.controls:
        log.warning("LoRAs and ControlNets are made for the base: the refiner makes its steps without them.")
