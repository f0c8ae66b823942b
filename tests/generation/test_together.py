"""Several requests in one batch: each picture equals its own made alone, and each request has its own fate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.core.errors import Cancelled, LightDiffusionError, OptionsError, OutOfMemoryError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture
from modules.generation import text_to_image
from modules.generation.job import Job
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage
from modules.generation.passes.batch import Batch
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.generation.together import Ended, Request, generate_together, number_together
from tests import tiny, tiny_project
from tests.generation.test_text_to_image import options, pixels

LONG = ", ".join(["a cat in the rain"] * 20)  # two chunks
VARIED: tuple[dict[str, Any], ...] = (
    {"prompt": "a cat", "seed": 5},
    {"prompt": "a red (boat:1.3) on the sea", "negative_prompt": "blurry", "seed": 77, "number": 2},
    {"prompt": "two dogs", "negative_prompt": "a cat", "seed": 5},
)


class Told:
    """The requests, with all that each of them is told."""

    def __init__(self, requests: Sequence[GenerationOptions]) -> None:
        self.events: list[list[Progress]] = [[] for _ in requests]
        self.requests = [
            Request(options=each, on_progress=events.append, cancel=CancelToken())
            for each, events in zip(requests, self.events, strict=True)
        ]
        self.pictures: list[list[Picture]] = [[] for _ in requests]
        self.errors: dict[int, LightDiffusionError | None] = {}

    def run(self, session: Session) -> Told:
        for number, made in generate_together(self.requests, session):
            if isinstance(made, Ended):
                assert number not in self.errors
                self.errors[number] = made.error
            else:
                self.pictures[number].append(made.fetched())
        return self


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are sampled, pass by pass."""
    sizes: list[int] = []
    original = text_to_image.sample_pass

    def counted(batch: Batch, *rest: Any) -> Tensor:
        sizes.append(len(batch.seeds))
        return original(batch, *rest)

    monkeypatch.setattr(text_to_image, "sample_pass", counted)
    return sizes


def assert_as_alone(told: Told, session: Session) -> None:
    for request, pictures in zip(told.requests, told.pictures, strict=True):
        pictures = sorted(pictures, key=place)
        alone = sorted(generate(request.options, session), key=place)
        assert [picture.parameters for picture in pictures] == [picture.parameters for picture in alone]
        for one, other in zip(pictures, alone, strict=True):
            assert np.abs(pixels(one) - pixels(other)).max() <= 1
            assert (one.seed, one.request_seed) == (other.seed, other.request_seed)


def place(picture: Picture) -> tuple[int, bool]:
    """A batch makes the first pass of all its pictures, then the second."""
    return picture.seed, "Hires" in picture.parameters


def kinds(photo: Path, mask: Path, edges: Path) -> dict[str, dict[str, Any]]:
    control = ControlChoice(name=str(edges), image=photo, mode="control")
    return {
        "plain": {},
        "noise at each step": {"sampler": "dpmpp_2m_sde", "rescale_cfg": 0.5},
        "inpainting": {"init": InitImage(image=photo, mask=mask, mask_content="noise")},
        "HiresFix and ControlNet": {"hires": HiresOptions(steps=1, keep_first_pass=True), "controls": (control,)},
    }


@pytest.mark.parametrize("kind", kinds(Path(), Path(), Path()))
def test_each_picture_is_its_own_made_alone(
    kind: str, session: Session, photo: Path, mask: Path, tmp_path: Path, batches: list[int]
) -> None:
    edges = tiny_project.save_controlnet(tmp_path / "edges.safetensors")
    common = kinds(photo, mask, edges)[kind]
    told = Told([options(**common | each) for each in VARIED]).run(session)
    assert told.errors == {0: None, 1: None, 2: None} and batches == [4]
    assert_as_alone(told, session)


def test_each_row_of_sdxl_has_its_own_vector_for_the_refiner_too(tmp_path: Path, batches: list[int]) -> None:
    session = tiny_project.session_at(tiny_project.project(tmp_path, sdxl=True))
    save_file(tiny.refiner_tensors(), tmp_path / "models" / "checkpoints" / "xl_refiner.safetensors")
    common = {"steps": 2, "checkpoint": "tiny", "refiner": "xl_refiner", "refiner_start": 0.5}
    told = Told([options(**each, **common) for each in VARIED]).run(session)
    assert batches == [4]
    assert_as_alone(told, session)


def test_prompts_of_another_form_get_their_own_batch(session: Session, batches: list[int]) -> None:
    """A longer prompt, two parts, and a change at another step cannot be rows of one batch; the same change can."""
    prompts = ("a cat", LONG, "a cat AND a dog", "a [cat:dog:0.5]", "a [hen:fox:0.5]", "a bird")
    told = Told([options(prompt=prompt, emphasis="a1111", steps=4) for prompt in prompts]).run(session)
    assert sorted(batches) == [1, 1, 2, 2]
    assert_as_alone(told, session)


def test_each_request_sees_its_own_progress(session: Session) -> None:
    told = Told([options(**each) for each in VARIED]).run(session)
    for request, events in zip(told.requests, told.events, strict=True):
        alone: list[Progress] = []
        list(
            generate(
                replace(request.options, number=1, batch=request.options.number), session, on_progress=alone.append
            )
        )
        assert [(event.phase, event.step, event.steps) for event in events] == [
            (event.phase, event.step, event.steps) for event in alone
        ]
        assert {(event.batch, event.batches) for event in events} == {(1, 1)}
        shown = [(one.denoised, other.denoised) for one, other in zip(events, alone, strict=True)]
        for one, other in shown:
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert torch.allclose(one, other, atol=1e-4)


def test_a_cancelled_request_drops_out(session: Session) -> None:
    told = Told([options(**each) for each in VARIED])
    middle = told.requests[1]

    def stop(event: Progress) -> None:
        told.events[1].append(event)
        if event.step == 2:
            middle.cancel.cancel()

    told.requests[1] = replace(middle, on_progress=stop)
    told.run(session)
    assert told.pictures[1] == [] and isinstance(told.errors[1], Cancelled)
    assert [event.step for event in told.events[1]] == [0, 1, 2]
    told.requests, told.pictures = told.requests[::2], told.pictures[::2]
    assert_as_alone(told, session)


def test_a_skipped_request_gets_no_pictures_but_no_error(session: Session) -> None:
    told = Told([options(**each) for each in VARIED])
    middle = told.requests[1]

    def skip(event: Progress) -> None:
        told.events[1].append(event)
        if event.step == 2:
            middle.cancel.skip()

    told.requests[1] = replace(middle, on_progress=skip)
    told.run(session)
    assert told.pictures[1] == [] and told.errors[1] is None
    assert [event.step for event in told.events[1]] == [0, 1, 2]
    told.requests, told.pictures = told.requests[::2], told.pictures[::2]
    assert_as_alone(told, session)


def test_once_all_are_cancelled_the_work_ends(session: Session) -> None:
    told = Told([options(**each) for each in VARIED])
    first = told.requests[0]

    def stop(event: Progress) -> None:
        told.events[0].append(event)
        for request in told.requests:
            request.cancel.cancel()

    told.requests[0] = replace(first, on_progress=stop)
    told.run(session)
    assert [type(told.errors[number]) for number in range(3)] == [Cancelled] * 3
    assert len(told.events[0]) == 1 and not any(told.pictures)


def test_a_request_that_cannot_be_prepared_fails_alone(session: Session, batches: list[int]) -> None:
    prompts = ("a cat", " AND ".join(["a cat"] * 17), "a dog")
    told = Told([options(prompt=prompt, emphasis="a1111") for prompt in prompts]).run(session)
    assert isinstance(told.errors[1], OptionsError) and "AND" in str(told.errors[1])
    assert batches == [2] and [len(pictures) for pictures in told.pictures] == [1, 0, 1]


def test_when_memory_runs_out_nothing_leaves_the_gpu_and_the_rest_is_left(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Tensor] = []
    original = Job.decode_soon

    def short(job: Job, latent: Tensor) -> Any:
        decoded.append(latent)
        if len(decoded) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(job, latent)

    monkeypatch.setattr(Job, "decode_soon", short)
    monkeypatch.setattr(session, "make_room", lambda: pytest.fail("the requests can be made one by one"))
    told = Told([options(**each) for each in VARIED])
    with pytest.raises(OutOfMemoryError):
        told.run(session)
    assert [len(pictures) for pictures in told.pictures] == [1, 0, 0] and told.errors == {0: None}


@pytest.mark.parametrize(
    ("numbers", "most", "expected"),
    [
        ([1], 8, 1),
        ([1] * 7, 8, 4),
        ([1] * 20, 8, 8),
        ([1] * 20, 5, 4),
        ([3, 1, 1], 8, 2),
        ([3, 3, 2, 1], 8, 3),
        ([3, 3], 8, 1),
        ([100, 1], 8, 1),
        ([2, 2], 1, 1),
    ],
)
def test_batches_have_usual_sizes(numbers: list[int], most: int, expected: int) -> None:
    assert number_together(numbers, most) == expected
