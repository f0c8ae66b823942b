"""Refuses step skipping where it would cost too much quality, or cannot work (no torch)."""

from __future__ import annotations

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions
from modules.sampling.names import SAMPLER_LABELS, sampler_and_scheduler

# Their steps are not those of the schedule, but those that the network's answers or their own levels call for.
OWN_STEPS = ("dpm_fast", "dpm_adaptive")
FEWEST_STEPS = {1: 10, 2: 15, 3: 20}  # steps skipped after each full one -> the shortest pass that loses little


def check_skipping(options: GenerationOptions) -> None:
    """Raises OptionsError for a pass that is too short to skip so many steps, or whose sampler cannot skip any."""
    skip, hires = options.stable_fast_skip, options.hires
    if not skip or options.stable_fast == "off":
        return
    passes = [("", options.sampler, options.steps)]
    if hires is not None:
        passes.append(("HiresFix: ", hires.sampler or options.sampler, hires.steps or options.steps))
    for title, name, steps in passes:
        sampler, _ = sampler_and_scheduler(name, None)
        if sampler in OWN_STEPS:
            raise OptionsError(
                f"{title}{SAMPLER_LABELS[sampler]} chooses its steps itself, so none can be skipped: choose another "
                "sampler, or set --stable-fast-skip 0."
            )
        if steps < FEWEST_STEPS[skip]:
            raise OptionsError(
                f"{title}--stable-fast-skip {skip} needs at least {FEWEST_STEPS[skip]} steps, since pictures of fewer "
                f"({steps}) change too much: take more steps, or skip fewer."
            )
