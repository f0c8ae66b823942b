"""Lists other programs' settings that we do not support, except those known not to affect the picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from modules.generation.option_table import PLAIN_OPTIONS

OFF = ("", "0", "0.0", "1.0x", "false", "none", "off", "null", "[]", "{}", "disabled", "default", "automatic")
MOST_NAMES = 12

# Fields that become options, and fields that do not affect the picture (names in lower case).
HONOURED = frozenset(
    (
        *(option.key.casefold() for option in PLAIN_OPTIONS if option.key),
        *("sampler", "schedule type", "scheduler", "seed", "size"),
        *("model", "model path", "model hash", "base model", "base model hash", "vae hash", "module 1"),
        *("text encoder", "text encoder hash", "text encoder 2", "text encoder 2 hash"),
        *("refiner hash", "refiner switch by sampling steps"),
        *("batch size", "batch pos", "init image", "hires fix", "denoising strength"),
        *("mask blur", "mask mode", "masked content", "inpaint area", "masked area padding"),
        *("hires upscale", "hires scale", "hires resize", "hires size", "hires upscaler", "hires steps"),
        *("sd upscale", "sd upscale overlap", "sd upscale upscaler"),
        *("hires cfg scale", "hires sampler", "hires schedule type", "hires scheduler", "hires strength"),
    )
)
HARMLESS = frozenset(
    (
        *("version", "app", "backend", "pipeline", "operations", "parser", "precision", "torch", "performance"),
        *("lora hashes", "ti hashes", "ti", "hashes", "embeddings", "used embeddings", "refine", "metadata scheme"),
        *("created date", "civitai resources", "civitai metadata", "generated", "time taken", "user", "comment"),
        *("template", "negative template", "wildcard prompt", "wildcard negative prompt", "hires force", "cfg mode"),
        *("diffusion in low bits", "gpu", "source identifier", "url", "title", "image seed", "batch index", "index"),
        *("init image hash", "init image size", "mask hash", "workflow", "image hash", "hires module 1"),
    )
)
_OURS = re.compile(r"(?:lora|controlnet) \d+")


def left_out(fields: Mapping[str, str]) -> list[str]:
    """Returns the names of fields that are switched on but match no option."""
    names = [name for name, value in fields.items() if _counts(name.casefold(), value.strip().casefold())]
    if fields.get("Refiner", "").casefold() not in OFF and "Refiner switch by sampling steps" not in fields:
        names.append("Refiner switch by timesteps (steps are counted here)")
    if "Model hash" in fields and "Model" not in fields:
        names.append("the checkpoint (only its hash is known)")
    return names


def _counts(name: str, value: str) -> bool:
    if name in HONOURED or name in HARMLESS or value in OFF or (name == "rng" and value == "cpu"):
        return False
    return not (_OURS.fullmatch(name) and value.startswith("{"))


def in_words(names: Iterable[str]) -> str:
    """Joins the names into one line; an extension's many settings, which begin with the same word, count as one."""
    unique = list(dict.fromkeys(name for name in names if name.strip()))
    first_words = Counter(name.split()[0] for name in unique)
    short = dict.fromkeys(
        f"{word} ({first_words[word]} settings)" if first_words[word := name.split()[0]] > 2 else name
        for name in unique
    )
    shown = list(short)[:MOST_NAMES]
    return ", ".join(shown) + (f" and {len(short) - MOST_NAMES} more" if len(short) > MOST_NAMES else "")
