"""Reads the shapes of weights, and refuses those that fit no network of ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.foreign import SUPPORTED

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def shape_of(shapes: Shapes, name: str, network: str, rank: int) -> tuple[int, ...]:
    """Returns the shape of a required weight, which must have at least `rank` dimensions, none of size 0."""
    if name not in shapes:
        raise ModelFileError(f"The {network} lacks {name}; the file is incomplete or of another kind. {SUPPORTED}.")
    shape = shapes[name]
    if len(shape) < rank or 0 in shape:
        raise ModelFileError(
            f"{name} of the {network} has shape {list(shape)}, which fits none of our networks. {SUPPORTED}."
        )
    return shape


def check_divides(channels: int, parts: int, what: str, network: str) -> None:
    if parts < 1 or channels % parts:
        raise ModelFileError(
            f"The {network}'s {channels} channels cannot be divided into {what} of {parts}; "
            f"this network is unknown. {SUPPORTED}."
        )
