"""Prompts that change between steps or are joined by AND, in whole requests, against hand-written Euler steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modules.core.errors import OptionsError
from modules.generation.job import prepare_job
from modules.generation.options import MAX_PROMPT, ControlChoice, GenerationOptions, HiresOptions, InitImage
from modules.generation.progress import Progress
from modules.generation.prompts import joined_contexts
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.sampling.noise import ImageNoise
from modules.sampling.schedules import make_sigmas
from modules.sampling.trained_noise import noise_schedule
from modules.text.encode import encode_texts
from modules.text.size_vector import SizeFeatures
from tests import tiny, tiny_project
from tests.stable_fast.prompt_stage import recorded_evaluations

ROUNDING = 2e-6  # one step with another prompt differs 40 times as much
VISIBLE = 4e-5
STEPS = 4
CFG = 3.0
SCHEDULE = noise_schedule()
SIGMAS = make_sigmas(SCHEDULE, "karras", STEPS, sampler="euler")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return tiny_project.session_at(root)


def options(prompt: str, **changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": STEPS, "seed": 5, "cfg": CFG, "sampler": "euler"}
    return GenerationOptions(prompt=prompt, emphasis="a1111", **values | changes)


def latents(session: Session, prompt: str, **changes: Any) -> Tensor:
    """The clean latents of the last step."""
    kept: list[Tensor] = []

    def keep(event: Progress) -> None:
        if event.denoised is not None:
            kept.append(event.denoised.clone())

    list(generate(options(prompt, **changes), session, on_progress=keep))
    return kept[-1]


Parts = Sequence[tuple[str, float]]


@torch.inference_mode()
def euler_by_hand(session: Session, steps: Sequence[Parts], negative: str = "", cfg: float = CFG) -> Tensor:
    """Samples with a list of (text, weight) for each step; every text is evaluated separately."""
    model = session.model(options(""))
    texts = {negative, *(text for parts in steps for text, _ in parts)}
    encoded = encode_texts(dict(model.text.module.items()), model.spec.texts, texts, emphasis="a1111")

    def clean(text: str, x: Tensor, sigma: float) -> Tensor:
        timestep = torch.tensor([SCHEDULE.sigma_to_t(sigma)])
        return x - sigma * model.unet.module(x / (sigma**2 + 1) ** 0.5, timestep, encoded[text].context[None], None)

    x = ImageNoise([5], (4, 8, 8)).start() * (1 + SIGMAS[0] ** 2) ** 0.5
    for parts, sigma, following in zip(steps, SIGMAS, SIGMAS[1:], strict=False):
        away = clean(negative, x, sigma)
        denoised = away + cfg * sum(weight * (clean(text, x, sigma) - away) for text, weight in parts)
        x = denoised + (x - denoised) * (following / sigma)
    return x


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / second.norm())


A, B = [("a cat", 1.0)], [("a dog", 1.0)]


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [
        ("a [cat:dog:0.5]", [A, A, B, B]),
        ("a [cat:dog:1]", [A, B, B, B]),
        ("a [cat|dog]", [A, B, A, B]),
        ("a cat AND a dog:0.5", [[("a cat ", 1.0), (" a dog", 0.5)]] * 4),
        (
            "a [cat:dog:3] AND a dog :-0.5",
            [[("a cat ", 1.0), (" a dog", -0.5)]] * 3 + [[("a dog ", 1.0), (" a dog", -0.5)]],
        ),
        ("[a:b:x] AND", [[("[a:b:x] ", 1.0), ("", 1.0)]] * 4),
        (f"a [cat::0.5]{', long' * 40}", [[(f"a cat{', long' * 40}", 1.0)]] * 2 + [[(f"a {', long' * 40}", 1.0)]] * 2),
    ],
)
def test_each_step_is_what_its_prompts_make_by_hand(session: Session, prompt: str, steps: list[Parts]) -> None:
    assert distance(latents(session, prompt), euler_by_hand(session, steps)) < ROUNDING


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 0.75)])
def test_the_formula_is_the_same_at_cfg_one(session: Session, weights: tuple[float, float]) -> None:
    prompt = f"a cat:{weights[0]} AND a dog:{weights[1]}"
    parts = [("a cat", weights[0]), (" a dog", weights[1])]
    expected = euler_by_hand(session, [parts] * STEPS, cfg=1.0)
    assert distance(latents(session, prompt, cfg=1.0), expected) < ROUNDING


def test_negative_prompts_change_too(session: Session) -> None:
    found = latents(session, "a cat", negative_prompt="[blurry:dark:2] AND")
    early = latents(session, "a cat", negative_prompt="blurry AND")
    assert distance(found, early) > VISIBLE
    assert distance(found, latents(session, "a cat", negative_prompt="dark AND")) > VISIBLE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modules.text.prompt_schedule.MOST_TEXTS", 2)  # at cfg 1 too, although guidance is off
        with pytest.raises(OptionsError, match="3 different texts"):
            latents(session, "a cat", negative_prompt="[blurry:dark:2] AND")


def test_two_equal_alternatives_are_the_text_itself(session: Session) -> None:
    plain = latents(session, "a cat")
    assert torch.equal(latents(session, "a [cat|cat]"), plain)
    assert torch.equal(latents(session, "a [cat:cat:0.5]"), plain)
    assert distance(plain, latents(session, "a [cat|dog]")) > VISIBLE


def test_in_the_other_modes_brackets_are_words_and_one_line_says_so(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    for prompt in ("a [cat|dog]", "a cat AND a dog", "[a:b:0.5]"):
        for mode, lines in (("comfy", 1), ("off", 0), ("a1111", 0), ("no_norm", 0)):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                job = prepare_job(replace(options(prompt, hires=HiresOptions()), emphasis=mode), session)
            told = [record.getMessage() for record in caplog.records]
            assert [("--emphasis a1111" in line) for line in told] == [True] * lines
            schedule = job.prompts["sampling"].schedule
            assert (schedule.parts == ((prompt,) * STEPS,)) == (mode in ("comfy", "off"))
    caplog.clear()
    prepare_job(replace(options("a (cat:1.2) [b]"), emphasis="comfy"), session)
    assert not caplog.records


def test_tags_of_other_networks_are_named_once_and_left_out(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = latents(session, "a cat<hypernet:ink:1>", negative_prompt="<style:x>")
    assert [record.getMessage() for record in caplog.records] == [
        'Left out of the prompt: "<hypernet:ink:1> <style:x>". Only <lora:...> and <lyco:...> tags are known here.'
    ]
    assert torch.equal(found, latents(session, "a cat"))
    assert torch.equal(latents(session, "a cat<lyco:ink:0.5>"), latents(session, "a cat<lora:ink:0.5>"))


def test_the_second_pass_counts_on(session: Session) -> None:
    job = prepare_job(options("[a:b:0.5] [c:d:1.5] [e:f:5]", hires=HiresOptions(steps=2)), session)
    assert job.prompts["sampling"].schedule.parts == (("a c e",) * 2 + ("b c e",) * 2,)
    assert job.prompts["hires"].schedule.parts == (("b c e", "b d f"),)
    assert len(list(generate(options("[a:b:0.5] [c:d:1.5]", hires=HiresOptions(steps=2)), session))) == 1


def test_a_pass_without_steps_needs_no_prompt(session: Session, root: Path) -> None:
    init = InitImage(image=root / "photo.png", denoise=0.0)
    assert len(list(generate(options("[a|b] AND c", init=init, hires=HiresOptions(denoise=0.0)), session))) == 1


EVERYTHING = "a [cat|dog] AND (a [red:blue:0.5] hat:1.2):0.5"


@pytest.mark.parametrize("sampler", ["heun", "euler_cfg_pp"])
def test_pictures_of_a_batch_are_those_made_alone(session: Session, sampler: str) -> None:
    how: dict[str, Any] = {"sampler": sampler, "cfg": 1.0}
    together = latents(session, EVERYTHING, batch=2, **how)
    for position in range(2):
        alone = latents(session, EVERYTHING, seed=5 + position, **how)
        assert distance(together[position], alone[0]) < ROUNDING * 10


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The contexts for which a prompt stage was evaluated."""
    return recorded_evaluations(monkeypatch)


def fused_is_eager(session: Session, **how: Any) -> bool:
    eager = latents(session, EVERYTHING, batch=2, **how)
    return distance(latents(session, EVERYTHING, batch=2, stable_fast="fused", **how), eager) < ROUNDING


def test_stable_fast_and_controlnets_see_the_switches(session: Session, root: Path, evaluations: list[Tensor]) -> None:
    """Mode "control" leaves only the negative rows alone, however many parts there are."""
    control = ControlChoice(name="edges", image=root / "photo.png", mode="control", strength=2.0)
    assert fused_is_eager(session, controls=(control,))
    evaluations.clear()
    assert fused_is_eager(session, controls=(control,))
    assert len(evaluations) == 2 * 4  # four combinations of texts, for the UNet and for the ControlNet
    alone = [latents(session, part, controls=(control,)) for part in ("a cat", "a cat AND a cat:0")]
    assert distance(alone[1], alone[0]) < ROUNDING


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_the_longest_prompt_is_told(field: str) -> None:
    values = {"prompt": "", "negative_prompt": ""}
    GenerationOptions(**values | {field: "a" * MAX_PROMPT})
    with pytest.raises(OptionsError, match=r"20001 characters: 20000 is the most"):
        GenerationOptions(**values | {field: "a" * (MAX_PROMPT + 1)})


def test_each_text_of_sdxl_has_its_own_vector(tmp_path: Path) -> None:
    """Pooled text, then sizes: the prompt's parts and the negative prompt each with theirs, also when they change."""
    tiny.save_checkpoint(tmp_path / "models" / "checkpoints" / "xl.safetensors", sdxl=True)
    job = prepare_job(options("a [cat:dog:0.5] AND a bird", negative_prompt="bad"), tiny_project.session_at(tmp_path))
    prompts = job.prompts["sampling"]
    sizes = SizeFeatures(prompt=torch.full((48,), 2.0), negative=torch.full((48,), 3.0))
    contexts = joined_contexts([(prompts, 2)], unconditional=True, sizes=sizes)
    assert contexts.by_step == (0, 0, 1, 1)
    for text, animal in zip(contexts.distinct, ("cat", "dog"), strict=True):
        named = (f"a {animal}", "a bird", "bad")
        pooled = [prompts.encoded[next(key for key in prompts.encoded if key.strip() == name)].pooled for name in named]
        assert text.vector is not None and text.vector.shape == (6, 80)
        for part, (expected, size) in enumerate(zip(pooled, (2.0, 2.0, 3.0), strict=True)):
            for row in text.vector[2 * part : 2 * part + 2]:
                assert torch.equal(row, torch.cat([expected, torch.full((48,), size)]))  # type: ignore[list-item]
    assert joined_contexts([(prompts, 2)], unconditional=True).distinct[0].vector is None
