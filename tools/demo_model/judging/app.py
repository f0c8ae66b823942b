"""Makes the judged pictures through the app's public interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules.core.progress import CancelToken
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.generation.together import Ended, Request, generate_together
from tools.demo_model.judging.measure import Pixels


class App:
    """Makes pictures with one checkpoint, with the settings of the published tables."""

    def __init__(self, session: Session, checkpoint: str) -> None:
        self.session, self.checkpoint = session, checkpoint

    def image(self, prompt: str, seed: int, **changes: Any) -> Image.Image:
        return list(generate(self.options(prompt, seed, **changes), self.session))[-1].image

    def images(self, cases: Sequence[tuple[str, int]], **changes: Any) -> list[Image.Image]:
        """The pictures of these prompts and seeds, made in one batch."""
        made: dict[int, Image.Image] = {}
        requests = [
            Request(options=self.options(*case, **changes), on_progress=lambda _: None, cancel=CancelToken())
            for case in cases
        ]
        for number, result in generate_together(requests, self.session):
            if not isinstance(result, Ended):
                made[number] = result.fetched().image
            elif result.error is not None:
                raise result.error
        return [made[number] for number in range(len(cases))]

    def options(self, prompt: str, seed: int, **changes: Any) -> GenerationOptions:
        values: dict[str, Any] = {"checkpoint": self.checkpoint, "cfg": 4.0, "steps": 20, "sampler": "dpmpp_2m"}
        return GenerationOptions(prompt=prompt, seed=seed, **(values | changes))

    def pixels(self, prompt: str, seed: int, **changes: Any) -> Pixels:
        return np.asarray(self.image(prompt, seed, **changes).convert("RGB"))

    @torch.no_grad()
    def rebuild(self, images: Tensor) -> Tensor:
        """Encodes and decodes pictures, since no model can draw better than its decoder."""
        vae = self.session.model(GenerationOptions(prompt="", checkpoint=self.checkpoint)).vae
        return vae.decode(vae.encode(images)).clamp(-1, 1)
