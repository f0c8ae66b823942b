"""Reads the scales of PEFT layers, whose alpha is stored outside the weights: in adapter_config.json or the header."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import ModelFileError, quoted
from modules.core.typed import Unreadable, number, parse_json_object
from modules.loader.files.state_dict import read_metadata
from modules.lora.parse import split_key

_HEADER = "lora_adapter_metadata"
_SIDECAR = "adapter_config.json"
# PEFT's patterns are regular expressions, and the file is untrusted.
_LONGEST_PATTERN, _MOST_PATTERNS, _MOST_REPEATS = 200, 4096, 2
_REPEATS = re.compile(r"[*+{?]")
_NESTED = re.compile(r"\)[*+{?]|\\\d|\(\?")  # a repeated group, a back-reference or a lookaround


def read_scales(path: Path, keys: Iterable[str]) -> dict[str, float]:
    """Returns alpha / rank for each layer of the file, or an empty dict without a PEFT configuration.

    Raises ModelFileError if the configuration is damaged or contains values of the wrong type.
    """
    modules = {found[0] for key in keys if (found := split_key(key))}
    header = read_metadata(path).get(_HEADER)
    sidecar = path.with_name(_SIDECAR)
    try:
        if header is not None:
            return _scales(_components(parse_json_object(header)), modules)
        if path.stem.startswith("adapter_model") and sidecar.is_file():
            return _scales({"": parse_json_object(sidecar.read_bytes())}, modules)
    except (OSError, Unreadable) as error:
        source = path.name if header is not None else sidecar.name
        raise ModelFileError(f"The LoRA configuration in {source} cannot be used: {error}.") from error
    return {}


def _components(header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Splits diffusers' combined configuration ("unet.r", "text_encoder.r", ...) into one per prefix."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in header.items():
        part, _, name = key.rpartition(".")
        parts.setdefault(f"{part}." if part else "", {})[name] = value
    return parts


def _scales(configs: Mapping[str, Mapping[str, Any]], modules: Iterable[str]) -> dict[str, float]:
    read = {prefix: _Config(config) for prefix, config in configs.items()}
    return {
        module: config.scale(module)
        for module in modules
        for prefix, config in read.items()
        if module.startswith(prefix)
    }


class _Config:
    """The type-checked configuration values that determine alpha / rank."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._rank = _positive(config.get("r"), "r")
        self._alpha = _positive(config.get("lora_alpha", config.get("alpha")), "lora_alpha")
        self._ranks = _patterns(config.get("rank_pattern"), "rank_pattern")
        self._alphas = _patterns(config.get("alpha_pattern"), "alpha_pattern")
        self._root = bool(config.get("use_rslora"))

    def scale(self, module: str) -> float:
        rank = _matching(self._ranks, module, self._rank)
        alpha = _matching(self._alphas, module, self._alpha)
        if not rank or not alpha:
            return 1.0
        return alpha / (math.sqrt(rank) if self._root else rank)


def _matching(patterns: Iterable[tuple[re.Pattern[str], float]], module: str, default: float) -> float:
    """Applies PEFT's rule: the first pattern that matches the end of the layer's name wins."""
    return next((value for pattern, value in patterns if pattern.match(module)), default)


def _positive(value: object, name: str) -> float:
    """Reads a non-negative number; None becomes 0."""
    found = 0.0 if value is None else float(number(value, name))
    if found < 0:
        raise Unreadable(f"{name}: {quoted(value)} is below 0")
    return found


def _patterns(table: object, name: str) -> list[tuple[re.Pattern[str], float]]:
    if not table:
        return []
    if not isinstance(table, dict) or len(table) > _MOST_PATTERNS:
        raise Unreadable(f"{name}: {quoted(table)} is not a table of at most {_MOST_PATTERNS} layers")
    return [(_compiled(pattern, name), _positive(value, pattern)) for pattern, value in table.items()]


def _compiled(pattern: str, name: str) -> re.Pattern[str]:
    """Compiles a pattern, allowing only ones that match quickly: those with few repetitions and no repeated groups."""
    if len(pattern) > _LONGEST_PATTERN or len(_REPEATS.findall(pattern)) > _MOST_REPEATS or _NESTED.search(pattern):
        raise Unreadable(f"{name}: {quoted(pattern)} is too complex to be a layer's name")
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise Unreadable(f"{name}: {quoted(pattern)} is not a pattern ({error})") from error
