"""Scales of PEFT layers, whose alpha lies beside the weights: in adapter_config.json or in the header."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import ModelFileError
from modules.loader.state_dict import read_metadata
from modules.lora.parse import split_key

_HEADER = "lora_adapter_metadata"
_SIDECAR = "adapter_config.json"


def read_scales(path: Path, keys: Iterable[str]) -> dict[str, float]:
    """alpha / rank for each layer of the file; empty when the file comes without a PEFT configuration."""
    modules = {found[0] for key in keys if (found := split_key(key))}
    header = read_metadata(path).get(_HEADER)
    if header is not None:
        return _scales(_components(_parse(path, header)), modules)
    sidecar = path.with_name(_SIDECAR)
    if path.stem.startswith("adapter_model") and sidecar.is_file():
        return _scales({"": _parse(sidecar, sidecar.read_text(encoding="utf-8"))}, modules)
    return {}


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ModelFileError(
            f"The LoRA configuration in {path.name} is damaged ({error}); download it again."
        ) from error
    if not isinstance(config, dict):
        raise ModelFileError(f"The LoRA configuration in {path.name} is not a table; download it again.")
    return config


def _components(header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """diffusers joins configurations as "unet.r", "text_encoder.r", ...; here one each, by "unet." and so on."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in header.items():
        part, _, name = key.rpartition(".")
        parts.setdefault(f"{part}." if part else "", {})[name] = value
    return parts


def _scales(configs: Mapping[str, Mapping[str, Any]], modules: Iterable[str]) -> dict[str, float]:
    scales: dict[str, float] = {}
    for module in modules:
        for prefix, config in configs.items():
            if module.startswith(prefix):
                scales[module] = _scale(config, module)
    return scales


def _scale(config: Mapping[str, Any], module: str) -> float:
    rank = _value(config, "rank_pattern", module, config.get("r", 0))
    alpha = _value(config, "alpha_pattern", module, config.get("lora_alpha", config.get("alpha", 0)))
    if not rank or not alpha:
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _value(config: Mapping[str, Any], patterns: str, module: str, default: Any) -> float:
    """PEFT's rule: the first pattern that matches the end of the layer's name wins."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(?:.*\.)?(?:{pattern})$", module):
            return float(value)
    return float(default or 0)
