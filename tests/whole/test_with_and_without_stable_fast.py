"""Every kind of picture, of three families: the same with and without Stable-Fast, and no new traces."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests import tiny_project

# Both sides compute in float32 and differ only in the order of sums. On both families, the measured difference is at
# most 1.5e-6 of the latents' size, so picture values may round to a neighbouring integer.
LATENT_TOLERANCE = 2e-5
PIXEL_TOLERANCE = 1

TEXT_PREFIXES = {
    "SD1.x": ("cond_stage_model.transformer.",),
    "SD2.x": ("cond_stage_model.model.",),
    "SDXL": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
}
SAMPLERS = {
    "euler_ancestral": {"sampler": "euler_ancestral"},
    "dpmpp_2m karras": {"sampler": "dpmpp_2m", "scheduler": "karras"},
    "dpmpp_sde": {"sampler": "dpmpp_sde"},
}
KINDS = ("plain", "lora", "hires", "img2img", "control", "all")
# One sampler goes through all kinds. What a sampler does is the same for every family, and what a second pass and a
# first picture do is the same for every network, so the other rows leave out what the first has shown.
CELLS = [("SD1", "euler_ancestral", kind) for kind in KINDS]
CELLS += [("SD1", sampler, kind) for sampler in ("dpmpp_2m karras", "dpmpp_sde") for kind in ("plain", "hires", "all")]
CELLS += [
    (family, sampler, kind)
    for family, sampler in (("SD2", "dpmpp_sde"), ("SDXL", "euler_ancestral"))
    for kind in ("plain", "lora", "control", "all")
]
IN_CI = [cell for cell in CELLS if cell[0] != "SD2"]  # what SD2 has of its own is in SDXL, too
SLOW = [pytest.param(*cell, marks=pytest.mark.slow) for cell in CELLS if cell not in IN_CI]
CONTROLLED = {"control": {True}, "all": {False, True}}  # forms of UNet call: with residuals, without


@dataclass
class Bench:
    """One family's session, kept for all cells of the table as a user's would be, and the forms of UNet call so far."""

    root: Path
    session: Session
    forms: set[bool] = field(default_factory=set)
    first: dict[str, np.ndarray] = field(default_factory=dict)  # sampler -> its first plain picture

    def extras(self, kind: str) -> dict[str, Any]:
        photo = self.root / "photo.png"
        lora = {"loras": (LoraChoice(name="ink", strength=0.7, text_strength=0.4),)}
        hires = {"hires": HiresOptions(scale=2.0, steps=2, method="bislerp", denoise=0.6)}
        start = {"init": InitImage(image=photo, denoise=0.7)}
        control = {"controls": (ControlChoice(name="edges", image=photo, strength=0.5),)}
        part_time = {"controls": (ControlChoice(name="edges", image=photo, strength=0.5, end=0.6, mode="control"),)}
        everything = {**lora, **hires, **start, **part_time, "batch": 2}
        return {"plain": {}, "lora": lora, "hires": hires, "img2img": start, "control": control, "all": everything}[
            kind
        ]

    def options(self, kind: str, sampler: str) -> GenerationOptions:
        return GenerationOptions(
            prompt="a (red:1.2) cat",
            negative_prompt="dog",
            width=64,
            height=64,
            steps=3,
            cfg=3.0,
            seed=5,
            **SAMPLERS[sampler],
            **self.extras(kind),
        )

    def make(self, options: GenerationOptions) -> tuple[np.ndarray, Tensor]:
        """Returns the last picture, and the clean latents of the last step."""
        latents: list[Tensor] = []

        def keep(event: Progress) -> None:
            if event.denoised is not None:
                latents.append(event.denoised.detach().clone())

        pictures = list(generate(options, self.session, on_progress=keep))
        return np.asarray(pictures[-1].image, dtype=int), latents[-1]

    def plain(self, sampler: str) -> np.ndarray:
        return self.make(self.options("plain", sampler))[0]

    def first_plain(self, sampler: str) -> np.ndarray:
        """The plain picture as it was before the first cell. Every cell makes it again at its end."""
        if sampler not in self.first:
            self.first[sampler] = self.plain(sampler)
        return self.first[sampler]


@cache
def weights_in_file(path: Path) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def assert_weights_as_in_file(bench: Bench) -> None:
    model = bench.session.model(GenerationOptions(prompt="x"))
    with torch.inference_mode():
        model.text.clone().apply()  # a text encoder drops its LoRAs when it next works
    on_disk = weights_in_file(model.path)
    parts = {"model.diffusion_model.": model.unet.module, "first_stage_model.": model.vae}
    parts |= dict(zip(TEXT_PREFIXES[model.spec.family], model.text.module.children(), strict=True))
    compared = 0
    for prefix, module in parts.items():
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, on_disk[prefix + name]), f"{prefix}{name} is not as in the file"
            compared += 1
    assert compared > 300


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    family: str = request.param
    folder = tmp_path_factory.mktemp("matrix")
    root = tiny_project.project(folder, sd2=family == "SD2", sdxl=family == "SDXL")
    return Bench(root, tiny_project.session_at(root))


@pytest.mark.parametrize(("bench", "sampler", "kind"), IN_CI + SLOW, indirect=["bench"])
def test_the_same_picture_with_and_without_stable_fast(bench: Bench, sampler: str, kind: str) -> None:
    before = bench.first_plain(sampler)
    options = bench.options(kind, sampler)
    eager_picture, eager = bench.make(options)
    fast_picture, fast = bench.make(replace(options, stable_fast="full"))
    assert (fast - eager).abs().max() <= LATENT_TOLERANCE * eager.abs().max()
    assert np.abs(fast_picture - eager_picture).max() <= PIXEL_TOLERANCE
    if kind != "plain":
        assert np.abs(eager_picture[:64, :64] - before).max() > 3, f"{kind} did not change the picture"
    report = bench.session.stable_fast_report
    bench.forms |= CONTROLLED.get(kind, {False})
    assert report is not None and report.counters.eager_steps == 0, "Stable-Fast gave up"
    assert report.counters.traces == len(bench.forms), "one trace for each form of call, whatever the cell"
    assert (bench.plain(sampler) == before).all()
    assert_weights_as_in_file(bench)
