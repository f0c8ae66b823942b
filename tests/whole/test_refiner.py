"""The refiner in whole requests: which steps it makes, with everything else that a request may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pipeline
from modules.core import paths
from modules.core.errors import Cancelled, LightDiffusionError, OutOfMemoryError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture
from modules.generation import text_to_image
from modules.generation.metadata.write import from_parameters
from modules.generation.options import GenerationOptions, HiresOptions, InitImage
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests import tiny, tiny_project

ROUNDING = 2e-5  # float32 sums in another order; see test_with_and_without_stable_fast.py
STEPS, START = 5, 0.6  # three steps of the base, two of the refiner


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_project.project(tmp_path_factory.mktemp("refiner"), sdxl=True)
    save_file(tiny.refiner_tensors(), root / "models" / "checkpoints" / "xl_refiner.safetensors")
    tiny.save_checkpoint(root / "models" / "checkpoints" / "sd1.safetensors")
    return root


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return tiny_project.session_at(root)


def options(**changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": STEPS, "seed": 5, "cfg": 3.0}
    values |= {"sampler": "euler", "checkpoint": "tiny", "refiner": "xl_refiner", "refiner_start": START}
    return GenerationOptions(**values | changes)


def make(session: Session, **changes: Any) -> list[Picture]:
    return list(generate(options(**changes), session))


def text_of(path: str) -> str:
    with Image.open(path) as image:
        return str(image.info["parameters"])


def same(one: Picture, other: Picture) -> bool:
    return bool((np.asarray(one.image) == np.asarray(other.image)).all())


@contextmanager
def evaluated(session: Session) -> Iterator[list[str]]:
    """Lists which network ran, one entry per evaluation."""
    seen: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda *_: seen.append(name)

    base = session.model(options())
    refiner = session.refiner(options(), base)
    assert refiner is not None
    with (
        base.unet.module.register_forward_pre_hook(watch("base")),
        refiner.unet.module.register_forward_pre_hook(watch("refiner")),
    ):
        yield seen


def test_the_refiner_makes_the_last_steps_of_each_batch(session: Session) -> None:
    with evaluated(session) as seen:
        make(session, number=2)
    assert seen == 2 * (3 * ["base"] + 2 * ["refiner"])


def test_with_hires_fix_it_makes_the_last_steps_of_the_second_pass(session: Session) -> None:
    """The kept first pass is the picture without a refiner, and its text says so."""
    hires = HiresOptions(scale=1.5, denoise=0.5, keep_first_pass=True)
    with evaluated(session) as seen:
        first, _ = make(session, hires=hires)
    assert seen == 5 * ["base"] + 3 * ["base"] + 2 * ["refiner"]
    assert same(first, make(session, refiner=None, refiner_start=None)[0])
    assert "Refiner" not in first.parameters


def test_a_picture_of_a_batch_is_that_made_alone(session: Session) -> None:
    pair = make(session, batch=2)
    assert same(pair[1], make(session, seed=6)[0]) and not same(*pair)


def test_a_picture_is_made_again_from_its_text(session: Session) -> None:
    """The start is left out in the request, and the text holds it."""
    made = make(session, refiner_start=None)[0]
    again = from_parameters(made.parameters)
    assert (again.refiner, again.refiner_start) == ("xl_refiner", 0.8)
    assert same(made, next(iter(generate(again, session))))
    assert not same(made, make(session, refiner=None, refiner_start=None)[0])


@pytest.mark.parametrize("sampler", ["dpmpp_2m_cfg_pp", "heun", "dpmpp_sde"])
def test_a_start_of_zero_or_one_is_one_network_alone(session: Session, sampler: str) -> None:
    """A sampler that keeps a history or evaluates twice, with guidance of its own and with noise."""
    alone = make(session, sampler=sampler, refiner=None, refiner_start=None)[0]
    assert same(alone, make(session, sampler=sampler, refiner_start=1.0)[0])
    with evaluated(session) as seen:
        make(session, sampler=sampler, refiner_start=0.0)
    assert set(seen) == {"refiner"}


def test_what_is_not_painted_over_stays(session: Session, root: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.repeat([[0, 255]], 32, axis=1).repeat(64, axis=0).astype(np.uint8)).save(mask)
    init = InitImage(image=root / "photo.png", denoise=0.7, mask=mask, mask_blur=0)
    with evaluated(session) as seen:
        refined = np.asarray(make(session, init=init)[0].image)
    assert seen == 3 * ["base"] + 2 * ["refiner"]
    plain = np.asarray(make(session, init=init, refiner=None, refiner_start=None)[0].image)
    assert (refined[:, :24] == plain[:, :24]).all() and (refined[:, 40:] != plain[:, 40:]).any()


def test_cancelling_works_in_the_refiners_steps(session: Session) -> None:
    cancel = CancelToken()

    def on_progress(event: Progress) -> None:
        if event.step == 4:
            cancel.cancel()

    with evaluated(session) as seen, pytest.raises(Cancelled):
        list(generate(options(), session, on_progress=on_progress, cancel=cancel))
    assert seen.count("refiner") in (1, 2)


def test_loras_stay_with_the_base(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    plain = make(session)[0]
    assert not same(plain, make(session, prompt="a cat <lora:ink:1>")[0])
    assert "the refiner makes its steps without them" in caplog.text
    assert same(plain, make(session)[0])


def test_the_refiner_is_kept_until_another_is_named(session: Session, root: Path) -> None:
    base = session.model(options())
    kept = session.refiner(options(), base)
    make(session, refiner=None, refiner_start=None)
    assert session.refiner(options(), base) is kept
    save_file(tiny.refiner_tensors(seed=40), root / "models" / "checkpoints" / "another.safetensors")
    assert not same(make(session, refiner="another")[0], make(session)[0])
    assert session.model(options()) is base and session.refiner(options(), base) is not kept


def test_when_memory_runs_out_a_refiner_that_is_not_named_goes(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is named stays, and the advice is to leave it out."""
    kept = session.refiner(options(), session.model(options()))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(text_to_image, "first_pass", full)
    with pytest.raises(OutOfMemoryError, match="smaller size or batch, leave out the refiner, or close"):
        make(session)
    assert session.refiner(options(), session.model(options())) is kept
    with pytest.raises(OutOfMemoryError, match="smaller size or batch, or close"):
        make(session, refiner=None, refiner_start=None)
    assert session.refiner(options(), session.model(options())) is not kept


def latents(session: Session, **changes: Any) -> Tensor:
    kept: list[Tensor] = []

    def keep(event: Progress) -> None:
        if event.denoised is not None:
            kept.append(event.denoised.clone())

    list(generate(options(**changes), session, on_progress=keep))
    return kept[-1]


@pytest.fixture
def small(root: Path) -> dict[str, str]:
    """Both UNets with two levels, which are traced in a fraction of the time."""
    two = {"channels": (32, 64), "res_blocks": 1, "middle_depth": 1}
    for name, config, depths in (("tiny", tiny.SDXL_UNET, (0, 1)), ("xl_refiner", tiny.REFINER_UNET, (1, 0))):
        path = root / "models" / "checkpoints" / f"{name}.safetensors"
        kept = load_file(path)
        others = {key: weight for key, weight in kept.items() if not key.startswith("model.diffusion_model.")}
        unet = tiny.unet(replace(config, **two, depths=depths))
        save_file(others | tiny.prefixed("model.diffusion_model.", unet), path.with_stem(f"small_{name}"))
    return {"checkpoint": "small_tiny", "refiner": "small_xl_refiner"}


@pytest.mark.slow
def test_stable_fast_compiles_both(root: Path, small: dict[str, str]) -> None:
    session = tiny_project.session_at(root)
    eager, fast = latents(session, **small), latents(session, **small, stable_fast="full")
    assert (fast - eager).abs().max() <= ROUNDING * eager.abs().max()
    report = session.stable_fast_report
    assert report is not None
    counters = [part.counters for part in (report, report.parts["refiner"])]
    assert [(found.traces, found.fused_steps, found.eager_steps) for found in counters] == [(1, 3, 0), (1, 2, 0)]
    latents(session, **small, stable_fast="full", prompt="a dog", refiner_start=None)
    assert [found.traces for found in counters] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": "sd1"}, "this checkpoint is SD1.x: choose an SDXL checkpoint, or leave out the refiner"),
        ({"refiner": "tiny"}, "tiny.safetensors.*not the SDXL refiner: give it with --checkpoint"),
        ({"checkpoint": "xl_refiner"}, "cannot start a picture"),
    ],
)
def test_files_in_the_wrong_place_are_sentences(session: Session, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LightDiffusionError, match=words):
        make(session, **changes)


def test_the_command_line_and_a_file_of_prompts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "PROJECT_ROOT", root)
    (tmp_path / "prompts.txt").write_text('{"prompt": "a cat", "refiner-start": 0.5}\n{"prompt": "x", "refiner": null}')
    common = ["64", "64", "--steps", "2", "--checkpoint", "tiny", "--device", "cpu", "--output-dir", str(tmp_path)]
    assert pipeline.main(["--prompts", str(tmp_path / "prompts.txt"), *common, "--refiner", "xl_refiner"]) == 0
    texts = [text_of(path) for path in capsys.readouterr().out.splitlines()]
    assert ["Refiner: xl_refiner, Refiner switch at: 0.5" in text for text in texts] == [True, False]
    for wrong in (["--refiner-start", "0.8"], ["--refiner", "xl_refiner", "--refiner-start", "1.5"]):
        assert pipeline.main(["a cat", *common, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
