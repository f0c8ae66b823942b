"""Loads ESRGAN-type upscaler files as RRDBNet, with the key names of ESRGAN, BSRGAN and Real-ESRGAN."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.files.numbered import count_numbered
from modules.loader.files.open_file import naming, require_weights
from modules.loader.files.state_dict import read_state_dict
from modules.loader.layouts.parts import strip_prefix
from modules.loader.load_weights import empty_weights
from modules.models.esrgan import RRDBNet, UpscalerConfig

_WRAPPERS = ("params_ema.", "params.")  # from Real-ESRGAN's trainer; averaged weights first
# ESRGAN's and BSRGAN's names -> Real-ESRGAN's names, or our name for the list of doubling convolutions.
_RENAMED = (
    (r"model\.0\.", "conv_first."),
    (r"model\.1\.sub\.(\d+)\.(?:RDB|rdb)(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
    (r"model\.1\.sub\.\d+\.(?=weight|bias)", "conv_body."),
    (r"RRDB_trunk\.(\d+)\.(?:RDB|rdb)(\d)\.", r"body.\1.rdb\2."),
    (r"trunk_conv\.", "conv_body."),
    (r"HRconv\.", "conv_hr."),
)
_DOUBLING = re.compile(r"(?:upconv|conv_up)(\d)\.")
_NUMBERED = re.compile(r"^model\.(\d{1,4})\.")


def load_rrdbnet(path: Path, device: torch.device) -> RRDBNet | None:
    """Loads the network in fp32; returns None if the file contains weights of another kind."""
    weights = rrdb_names(read_state_dict(path))
    if "conv_first.weight" not in weights or "body.0.rdb1.conv1.weight" not in weights:
        return None
    with naming(path):
        for name, tensor in weights.items():
            require_weights(name, tensor)
        config = _config(weights)
    with empty_weights():
        network = RRDBNet(config)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        wrong = sorted(
            name for name in expected.keys() | weights.keys() if expected.get(name) != _shape(weights.get(name))
        )
        raise ModelFileError(
            f"{path.name} is not a usable ESRGAN upscaler: its {quoted(wrong[0])} is missing, unknown or of "
            "another shape; choose another --hires-method."
        )
    converted = {name: tensor.to(device, torch.float32) for name, tensor in weights.items()}
    network.load_state_dict(converted, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def rrdb_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights to RRDBNet's names if the file belongs to an RRDBNet."""
    state = next((inner for wrapper in _WRAPPERS if (inner := strip_prefix(state, wrapper))), dict(state))
    renamed = {_rename(name): tensor for name, tensor in state.items()}
    # Original ESRGAN files only number the layers after the body: doublings, then conv_hr, then conv_last.
    numbers = sorted({int(match[1]) for name in renamed if (match := _NUMBERED.match(name))})
    names = [*(f"conv_up.{index}." for index in range(len(numbers) - 2)), "conv_hr.", "conv_last."]
    places = dict(zip(numbers, names[-len(numbers) :], strict=True)) if numbers else {}
    return {_NUMBERED.sub(lambda match: places[int(match[1])], name): tensor for name, tensor in renamed.items()}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return name
    return _DOUBLING.sub(lambda match: f"conv_up.{int(match[1]) - 1}.", name)


def _config(weights: Mapping[str, Tensor]) -> UpscalerConfig:
    first, growing = weights["conv_first.weight"], weights["body.0.rdb1.conv1.weight"]
    if first.ndim != 4 or growing.ndim != 4 or not first.numel() or not growing.numel():
        raise ModelFileError("Its first layers are not convolutions, so it is not an ESRGAN upscaler.")
    return UpscalerConfig(
        features=first.shape[0],
        growth=growing.shape[0],
        blocks=count_numbered(weights, r"body\.(\d+)\."),
        doublings=sum(name.startswith("conv_up.") and name.endswith(".weight") for name in weights),
        shuffle=max(1, math.isqrt(first.shape[1] // 3)),
    )


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape
