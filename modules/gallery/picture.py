"""A finished picture that is not saved yet."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture. `parameters` is its metadata text, `request_seed` the seed of the whole request."""

    image: Image.Image
    seed: int
    request_seed: int
    parameters: str
