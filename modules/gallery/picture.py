"""A finished picture that is not saved yet, as pixels or as the bytes of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class EncodedPicture:
    """A finished picture as the bytes of a PNG with its metadata: how a worker of a cluster sends it."""

    png: bytes
    seed: int
    request_seed: int | None

    def fetched(self) -> EncodedPicture:
        return self

    def encoded(self) -> EncodedPicture:
        return self


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture. `parameters` is its metadata text, `request_seed` the seed of the whole request.

    A picture that no request made has no such seed. `texts` are further texts of its file, by name.
    """

    image: Image.Image
    seed: int
    request_seed: int | None
    parameters: str
    texts: Mapping[str, str] = field(default_factory=dict[str, str])

    def fetched(self) -> Picture:
        return self

    def of_request(self, seed: int) -> Picture:
        """Returns the same picture as one of the request with this seed."""
        return replace(self, request_seed=seed)

    def encoded(self) -> EncodedPicture:
        """Returns the picture as a PNG with its metadata."""
        from modules.images.save import encode_png  # imports Pillow, which a front end does not need to start

        png = encode_png(self.image, self.parameters, self.texts)
        return EncodedPicture(png=png, seed=self.seed, request_seed=self.request_seed)


@dataclass(frozen=True, kw_only=True)
class PictureInFlight:
    """A picture that the GPU may still compute. `fetched` waits for it, in any thread.

    It raises MakeAgain if the picture cannot be used.
    """

    fetched: Callable[[], Picture]
    seed: int
    request_seed: int

    def of_request(self, seed: int) -> PictureInFlight:
        """Returns the same picture as one of the request with this seed."""
        return replace(self, request_seed=seed, fetched=lambda: self.fetched().of_request(seed))

    def encoded(self) -> EncodedPicture:
        return self.fetched().encoded()
