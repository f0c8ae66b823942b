"""Detection alone, from weights or just shapes, as when a checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modules.loader.detection.model_spec import ModelSpec, describe_parts, refuse_foreign
from modules.loader.layouts.parts import split_parts


def detect(state: Mapping[str, Tensor | tuple[int, ...]], metadata: Mapping[str, str]) -> ModelSpec:
    tensors = {
        name: value if isinstance(value, Tensor) else torch.empty(value, device="meta") for name, value in state.items()
    }
    refuse_foreign(tensors)
    return describe_parts(split_parts(tensors), tensors, metadata)
