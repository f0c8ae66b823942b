"""Resolves all names of samplers and schedulers: our ids, A1111's labels and upstream's spellings."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from modules.core.errors import LONGEST_QUOTE, OptionsError, quoted

SAMPLER_LABELS: dict[str, str] = {
    "euler": "Euler",
    "euler_cfg_pp": "Euler CFG++",
    "euler_ancestral": "Euler a",
    "euler_ancestral_cfg_pp": "Euler a CFG++",
    "heun": "Heun",
    "heunpp2": "HeunPP2",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_cfg_pp": "DPM++ SDE CFG++",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_cfg_pp": "DPM++ 2M CFG++",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "lcm": "LCM",
    "tcd": "TCD",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC BH2",
}
SCHEDULER_LABELS: dict[str, str] = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "ays": "Align Your Steps",
}
SAMPLERS: tuple[str, ...] = tuple(SAMPLER_LABELS)
SCHEDULERS: tuple[str, ...] = tuple(SCHEDULER_LABELS)

# Names other than ids and labels. Ids and labels are recognised in any case and punctuation without a row here.
_SAMPLER_ALIASES = {"heunpp": "heunpp2"} | {
    f"k_{name}": name for name in ("euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms")
}
# "Uniform" is A1111's name for evenly spaced timesteps; A1111's "Polyexponential" has an exponent of one.
_SCHEDULER_ALIASES = {"uniform": "normal", "polyexponential": "exponential", "ddim": "ddim_uniform"}
_AUTOMATIC_SCHEDULERS = {
    "dpmpp_2m": "karras",
    "dpmpp_2m_cfg_pp": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_sde_cfg_pp": "karras",
    "dpmpp_2s_ancestral": "karras",
    "dpm_2": "karras",
    "dpm_2_ancestral": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_3m_sde": "exponential",
    "lcm": "sgm_uniform",
    "tcd": "sgm_uniform",
    "ddim": "ddim_uniform",
}


class SamplerChoice(NamedTuple):
    """A sampler id, and the scheduler id if the name includes one ("DPM++ 2M Karras")."""

    sampler: str
    scheduler: str | None


class Labels(NamedTuple):
    """The names used in A1111's metadata: `Sampler:` and `Schedule type:`."""

    sampler: str
    schedule: str


def _key(name: str) -> str:
    """Keeps only letters and digits, with "++" as "pp", so that "Euler CFG++" and "euler_cfg_pp" become equal."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


def _table(labels: dict[str, str], aliases: dict[str, str]) -> dict[str, str]:
    names = {**aliases, **{label: name for name, label in labels.items()}, **{name: name for name in labels}}
    return {_key(name): target for name, target in names.items()}


_SAMPLER_TABLE = _table(SAMPLER_LABELS, _SAMPLER_ALIASES)
_SCHEDULER_TABLE = _table(SCHEDULER_LABELS, _SCHEDULER_ALIASES)


def resolve_sampler(name: str) -> SamplerChoice:
    """Finds the sampler for `name`, and the scheduler if included. The OptionsError lists the closest names."""
    key = _key(name)
    # We draw noise on the CPU for every sampler, so the "_gpu" variants of other programs map to the plain samplers.
    key = key.removesuffix("gpu")
    if key in _SAMPLER_TABLE:
        return SamplerChoice(_SAMPLER_TABLE[key], None)
    for ending in sorted(_SCHEDULER_TABLE, key=len, reverse=True):
        base = key.removesuffix(ending).removesuffix("gpu")
        if key.endswith(ending) and base in _SAMPLER_TABLE:
            return SamplerChoice(_SAMPLER_TABLE[base], _SCHEDULER_TABLE[ending])
    raise OptionsError(_unknown("sampler", name, key, _SAMPLER_TABLE, "euler"))


def resolve_scheduler(name: str, *, sampler: str = "euler") -> str:
    """Finds the scheduler id for `name`; "Automatic" means the usual scheduler for the sampler id `sampler`."""
    key = _key(name)
    if key == "automatic":
        return _AUTOMATIC_SCHEDULERS.get(sampler, "normal")
    if key in _SCHEDULER_TABLE:
        return _SCHEDULER_TABLE[key]
    raise OptionsError(_unknown("scheduler", name, key, _SCHEDULER_TABLE, "karras"))


def sampler_and_scheduler(sampler: str, scheduler: str | None) -> tuple[str, str]:
    """Returns both ids; the scheduler is the requested one, else the one in the sampler's label, else karras."""
    choice = resolve_sampler(sampler)
    if scheduler is None or scheduler.lower() == "automatic":
        scheduler = choice.scheduler or (scheduler or "karras")
    return choice.sampler, resolve_scheduler(scheduler, sampler=choice.sampler)


def label_of(sampler: str, scheduler: str) -> Labels:
    """Returns the A1111 labels of two ids; `resolve_sampler` and `resolve_scheduler` turn labels back into ids."""
    return Labels(SAMPLER_LABELS[sampler], SCHEDULER_LABELS[scheduler])


def uses_unconditional(sampler: str) -> bool:
    """Returns True for CFG++ samplers, which need the unconditional half even at cfg 1, and a cfg of about 1."""
    return sampler.endswith("_cfg_pp")


def _unknown(kind: str, name: str, key: str, table: dict[str, str], usual: str) -> str:
    near = difflib.get_close_matches(key[:LONGEST_QUOTE], table, n=5, cutoff=0.4)
    suggestions = list(dict.fromkeys(table[match] for match in near))[:3]
    hint = f"Did you mean {' or '.join(suggestions)}?" if suggestions else f"A common one is {usual}."
    return f"There is no {kind} called {quoted(name)}. {hint} All names: --list {kind}s."
