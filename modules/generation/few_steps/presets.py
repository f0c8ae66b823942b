"""Lists the settings of few-step models, and the words in a file's name that suggest them (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from modules.sampling.names import sampler_and_scheduler

LOW_CFG = 2.0  # up to here, models that were trained without guidance still work
EVEN_SCHEDULERS = ("sgm_uniform", "simple")  # both visit the timesteps that these models were trained at

# Splits names like "dreamshaperXL_v21TurboDPMSDE" into words.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_TRAINED_STEPS = re.compile(r"\b(\d{1,2}) steps?\b")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The settings of one kind of few-step model. `cfg` None keeps the request's guidance scale."""

    name: str
    label: str
    mark: str  # a pattern for the words of a file's name, in lower case with single spaces
    reason: str  # continues "a few-step model, which ..."
    sampler: str
    steps: int
    fitting: range  # the numbers of steps that work
    cfg: float | None = 1.0
    scheduler: str = "sgm_uniform"
    counted: bool = False  # the steps must be those in the file's name
    everyday: bool = False  # the mark is an everyday word, so a LoRA may well be named after the thing

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the settings by option name."""
        guidance = {} if self.cfg is None else {"cfg": self.cfg}
        return {"sampler": self.sampler, "scheduler": self.scheduler, "steps": self.steps, **guidance}

    def differences(self, sampler: str, scheduler: str | None, steps: int, cfg: float) -> dict[str, Any]:
        """Returns the preset's settings that these do not fit; raises OptionsError for an unknown name."""
        sampler, scheduler = sampler_and_scheduler(sampler, scheduler)
        fits = {
            "sampler": sampler == self.sampler,
            "scheduler": scheduler in EVEN_SCHEDULERS,
            "steps": steps in self.fitting,
            "cfg": cfg <= LOW_CFG,
        }
        return {name: value for name, value in self.settings.items() if not fits[name]}


# The more telling marks come first. Each row follows the model's own page.
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="dmd2",
            label="DMD2",
            mark=r"dmd( 2)?",
            reason="was trained at timesteps 999, 749, 499 and 249 and without guidance",
            sampler="lcm",
            steps=4,
            fitting=range(4, 9),
        ),
        Preset(
            name="tcd",
            label="TCD",
            mark="tcd",
            reason="has a sampler of its own and needs no guidance",
            sampler="tcd",
            steps=4,
            fitting=range(2, 9),
        ),
        Preset(
            name="lcm",
            label="LCM",
            mark="lcm",
            reason="has a sampler of its own and needs no guidance",
            sampler="lcm",
            steps=4,
            fitting=range(2, 9),
        ),
        Preset(
            name="lightning",
            label="Lightning",
            mark="lightning",
            reason="was trained for a fixed number of steps and without guidance",
            sampler="euler",
            steps=4,
            fitting=range(2, 9),
            counted=True,
            everyday=True,
        ),
        Preset(
            name="hyper",
            label="Hyper",
            mark="hyper(?! (real|detail))",
            reason="was trained for a fixed number of steps",
            sampler="ddim",
            steps=8,
            fitting=range(2, 17),
            counted=True,
            everyday=True,
        ),
        Preset(
            name="turbo",
            label="Turbo",
            mark="turbo",
            reason="was trained for one to four steps without guidance",
            sampler="euler_ancestral",
            steps=4,
            fitting=range(1, 9),
            everyday=True,
        ),
    )
}


def preset_in(text: str, *, lora: bool) -> Preset | None:
    """Returns the preset that a file's name or title suggests, with the number of steps that it mentions, or None.

    Files for a single step get none but Turbo's: the others need one special timestep or another kind of prediction.
    """
    words = " ".join(_WORDS.findall(text)).lower()
    counted = _TRAINED_STEPS.search(words)
    steps = int(counted[1]) if counted else None
    found = next((preset for preset in PRESETS.values() if _marked(preset, words, lora=lora)), None)
    if found is None or steps is None:
        return found
    if steps not in found.fitting:
        return None
    if not found.counted:
        return found
    keeps_cfg = found.name == "hyper" and re.search(r"\bcfg\b", words) is not None
    return replace(found, steps=steps, fitting=range(steps, steps + 1), cfg=None if keeps_cfg else found.cfg)


def _marked(preset: Preset, words: str, *, lora: bool) -> bool:
    """Tells whether the words hold the preset's mark. For a LoRA, an everyday word alone is too little."""
    if preset.everyday and lora and not _TRAINED_STEPS.search(words):
        return re.search(rf"\b(sd|xl|sdxl) {preset.mark}\b", words) is not None
    return re.search(rf"\b{preset.mark}\b", words) is not None
