"""Whole generations on a tiny checkpoint: seeds, batches, guidance, cancelling, reproducibility."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from modules.core.errors import Cancelled, DeviceError, ModelFileError, OptionsError, OutOfMemoryError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture
from modules.generation.metadata.write import from_parameters
from modules.generation.options import GenerationOptions
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate


def options(**changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 72, "steps": 3, "seed": 5, "cfg": 3.0}
    return GenerationOptions(**values | changes)


def make(session: Session, **changes: Any) -> list[Picture]:
    return list(generate(options(**changes), session))


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image, dtype=np.float64)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "dpmpp_sde", "dpmpp_2m_cfg_pp"])
def test_batches_equal_single_pictures(session: Session, sampler: str) -> None:
    together = make(session, number=2, batch=2, sampler=sampler)
    assert [picture.seed for picture in together] == [5, 6, 7, 8]
    for picture in together:
        alone = make(session, seed=picture.seed, sampler=sampler)[0]
        assert np.abs(pixels(alone) - pixels(picture)).max() <= 1


def test_pictures_of_one_request_differ(session: Session) -> None:
    first, second = make(session, number=2)
    assert np.abs(pixels(first) - pixels(second)).mean() > 1


def test_the_same_request_gives_the_same_bits(session: Session) -> None:
    assert (pixels(make(session)[0]) == pixels(make(session)[0])).all()


@pytest.mark.parametrize("changes", [{}, {"number": 2, "batch": 2}, {"sampler": "dpmpp_2m_sde", "rescale_cfg": 0.7}])
def test_a_picture_is_reproduced_from_its_text_bit_for_bit(session: Session, changes: dict[str, Any]) -> None:
    picture = make(session, **changes)[-1]
    again = list(generate(from_parameters(picture.parameters), session))
    assert len(again) == 1 and (pixels(again[0]) == pixels(picture)).all()
    assert again[0].parameters == picture.parameters


def test_size_is_as_asked_and_native_by_default(session: Session) -> None:
    assert make(session)[0].image.size == (64, 72)
    native = make(session, width=None, height=None, steps=1)[0]
    assert native.image.size == (512, 512)


def test_the_negative_prompt_matters(session: Session) -> None:
    assert (pixels(make(session)[0]) != pixels(make(session, negative_prompt="dog")[0])).any()


def test_progress_reports_each_step_and_each_picture(session: Session) -> None:
    events: list[Progress] = []
    list(generate(options(number=2), session, on_progress=events.append))
    assert [(e.phase, e.batch, e.step) for e in events] == [
        (phase, batch, step)
        for batch in (1, 2)
        for phase, steps in (("sampling", 3), ("decoding", 1))
        for step in range(steps + 1)  # step 0: the phase begins
    ]
    shown = [e.denoised for e in events if e.phase == "sampling" and e.step > 0]
    assert all(denoised is not None and denoised.shape == (1, 4, 9, 8) for denoised in shown)


def test_cancelling_stops_after_the_step_and_keeps_what_is_finished(session: Session) -> None:
    cancel, events, finished = CancelToken(), [], []

    def on_progress(event: Progress) -> None:
        events.append(event)
        if event.batch == 2 and event.step == 1:
            cancel.cancel()

    with pytest.raises(Cancelled):
        for picture in generate(options(number=3), session, on_progress=on_progress, cancel=cancel):
            finished.append(picture)
    assert len(finished) == 1
    assert (events[-1].batch, events[-1].step) == (2, 1)


def test_a_skipped_batch_is_left_out_and_the_others_are_as_ever(session: Session) -> None:
    cancel, steps = CancelToken(), []

    def on_progress(event: Progress) -> None:
        steps.append((event.batch, event.phase, event.step))
        if steps[-1] in ((2, "sampling", 1), (3, "decoding", 1)):  # the second comes too late for its batch
            cancel.skip()

    made = list(generate(options(number=4), session, on_progress=on_progress, cancel=cancel))
    whole = make(session, number=4)
    expected = [whole[0], whole[2], whole[3]]
    assert [step for batch, _, step in steps if batch == 2] == [0, 1]
    assert [picture.seed for picture in made] == [5, 7, 8] and cancel.skipped == 1
    assert [picture.parameters for picture in made] == [picture.parameters for picture in expected]
    assert all((pixels(one) == pixels(other)).all() for one, other in zip(made, expected, strict=True))


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate..."), MemoryError(),
    torch.AcceleratorError("CUDA error: out of memory\nSearch for ..."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ..."),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_out_of_memory_is_a_sentence(error: Exception, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.generation import text_to_image

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(text_to_image, "sample_pass", full)
    with pytest.raises(OutOfMemoryError, match="smaller size"):
        make(session)


def test_a_fault_of_the_gpu_is_a_sentence(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.generation import text_to_image

    def broken(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: misaligned address\nSearch for `cudaErrorMisalignedAddress' in ...")

    def complains(*_: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasLtMatmul")

    monkeypatch.setattr(text_to_image, "sample_pass", complains)
    with pytest.raises(RuntimeError, match="CUBLAS"):  # the GPU works: this is our bug
        make(session)
    monkeypatch.setattr(text_to_image, "raise_if_broken", broken)
    with pytest.raises(DeviceError, match="misaligned address"):
        make(session)
    monkeypatch.undo()
    monkeypatch.setattr(text_to_image, "sample_pass", broken)
    with pytest.raises(DeviceError, match=r"fault \(misaligned address\). Start the program again") as caught:
        make(session)
    assert caught.value.exit_code == 6 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sampler": "eulr"}, OptionsError, "euler"),
        ({"scheduler": "karas"}, OptionsError, "karras"),
        ({"checkpoint": "none-such"}, ModelFileError, "tiny"),
        ({"prompt": "embedding:none-such"}, (ModelFileError, OptionsError), "none-such"),
        ({"prompt": "<lora:none-such:1>"}, ModelFileError, "none-such"),
        ({"vae": "none-such"}, ModelFileError, "none-such"),
        ({"clip_skip": 9}, OptionsError, "9"),
    ],
)
def test_wrong_names_are_sentences(session: Session, changes: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make(session, **changes)
