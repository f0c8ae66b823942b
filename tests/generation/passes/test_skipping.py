"""Skipped steps in whole requests, against the eager network with hooks that count steps by the progress told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.generation.passes.skipping import reusing_steps
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.models.unet import UNet
from modules.stable_fast.config import DISABLE_VARIABLE
from tests import tiny_project


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("skipping"))


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return tiny_project.session_at(root)


@pytest.mark.parametrize(
    ("skip", "steps", "reusing"),
    [(1, 7, "-r-r-r-"), (1, 8, "-r-r-r--"), (2, 8, "-rr-rr--"), (3, 9, "-rrr-rrr-"), (0, 4, "----"), (1, 1, "-")],
)
def test_the_first_and_last_steps_are_full(skip: int, steps: int, reusing: str) -> None:
    assert reusing_steps(skip, [None] * steps) == [letter == "r" for letter in reusing]


def test_steps_beside_a_change_of_controls_are_full() -> None:
    assert reusing_steps(3, [(True,)] * 5 + [(False,)] * 6) == [letter == "r" for letter in "-rrr--rr-r-"]


def latents(session: Session, request: GenerationOptions) -> Tensor:
    kept: list[Tensor] = []

    def tell(event: Progress) -> None:
        if event.denoised is not None:
            kept.append(event.denoised.clone())

    list(generate(request, session, on_progress=tell))
    return kept[-1]


class Oracle:
    """Exchanges what enters the UNet's last output block in the steps that should be skipped."""

    def __init__(self, network: UNet, skip: int) -> None:
        self.kept: list[Tensor] = []
        self._block, self._width = network.output_blocks[-1], network.config.channels[0]
        self._skip, self._done, self._steps = skip, 0, 0
        self._deep = torch.empty(0)

    def tell(self, event: Progress) -> None:
        self._done, self._steps = event.step, event.steps
        if event.denoised is not None:
            self.kept.append(event.denoised.clone())

    def _hook(self, block: object, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        if not 0 < self._done < self._steps - 1 or self._done % (self._skip + 1) == 0:
            self._deep = x[:, : -self._width].clone()
        return (torch.cat([self._deep, x[:, -self._width :]], dim=1), *args[1:])

    def latents(self, session: Session, request: GenerationOptions) -> Tensor:
        handle = self._block.register_forward_pre_hook(self._hook)
        try:
            list(generate(request, session, on_progress=self.tell))
        finally:
            handle.remove()
        return self.kept[-1]


def options(**changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": 10, "seed": 5, "cfg": 3.0}
    return GenerationOptions(**values | changes)


def assert_as_the_oracle(session: Session, skip: int = 1, **changes: Any) -> None:
    network = session.model(options()).unet.module
    assert isinstance(network, UNet)
    expected = Oracle(network, skip).latents(session, options(**changes))
    found = latents(session, options(**changes, stable_fast="full", stable_fast_skip=skip))
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-4 * scale
    whole = Oracle(network, 0).latents(session, options(**changes))
    assert (found - whole).abs().max() > 1e-3 * scale, "something is skipped"


OTHERS = ("heun", "heunpp2", "dpmpp_sde", "uni_pc", "lcm")  # slower than they are telling


@pytest.mark.parametrize(
    "sampler",
    [
        "dpm_2_ancestral",
        "euler_cfg_pp",
        "dpmpp_3m_sde",
        *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_every_kind_of_sampler(session: Session, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "off")
    assert_as_the_oracle(session, sampler=sampler, cfg=1.0 if sampler in ("euler_cfg_pp", "lcm") else 3.0)


@pytest.mark.parametrize("level", ["off", pytest.param("fused", marks=pytest.mark.slow)])
def test_all_at_once(session: Session, root: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, level)
    assert_as_the_oracle(
        session,
        batch=2,
        loras=(LoraChoice(name="ink"),),
        init=InitImage(image=root / "photo.png", denoise=0.9),
        controls=(ControlChoice(name="edges", image=root / "photo.png"),),
        hires=HiresOptions(scale=1.5, denoise=0.7, method="bislerp"),
    )


def test_nothing_of_the_request_before_is_left(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "off")
    request = options(stable_fast="full", stable_fast_skip=1)
    first = latents(session, request)
    changed = options(prompt="a dog", loras=(LoraChoice(name="clay"),), stable_fast="full", stable_fast_skip=1)
    assert not torch.equal(latents(session, changed), first)
    assert torch.equal(latents(session, request), first)
