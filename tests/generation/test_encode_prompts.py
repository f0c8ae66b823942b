"""The prompts of several requests are encoded in one call of the text encoder, and the latest are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modules.generation.job import prepare_job, prepare_jobs
from modules.generation.options import LoraChoice
from modules.generation.session import Session
from tests import tiny_project
from tests.generation.test_text_to_image import options

PROMPTS = ("a cat", "a (red:1.3) boat", "a cat in the rain, " * 20, "two dogs", "a cat")


@pytest.fixture
def rows(session: Session) -> list[int]:
    """The rows of each call of the text encoder."""
    calls: list[int] = []

    def counted(module: Any, inputs: tuple[Tensor, ...]) -> None:
        calls.append(len(inputs[0]))

    for encoder in session.model(options()).text.module.children():
        encoder.register_forward_pre_hook(counted)
    return calls


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path))


def test_prompts_encoded_together_are_as_alone(session: Session, rows: list[int]) -> None:
    ink = LoraChoice(name="ink", strength=0.5, text_strength=0.8)
    requests = [options(prompt=prompt, negative_prompt="blurry", loras=(ink,)) for prompt in PROMPTS]
    together = prepare_jobs(requests, session)
    chunks = 3 + 1 + 2 * 2 + 1  # prompts, "blurry", two long texts, and what comfy weighs by: the empty text
    assert rows == [chunks]
    for request, job in zip(requests, together, strict=True):
        session.prompts.clear()
        alone = prepare_job(request, session)
        assert replace(job.options, seed=0) == replace(alone.options, seed=0)
        for one, other in zip(job.prompts.values(), alone.prompts.values(), strict=True):
            assert one.schedule == other.schedule and one.encoded.keys() == other.encoded.keys()
            for text, encoded in one.encoded.items():
                torch.testing.assert_close(encoded.context, other.encoded[text].context, atol=1e-5, rtol=1e-4)


def test_only_prompts_that_are_new_are_encoded(session: Session, rows: list[int]) -> None:
    prepare_job(options(prompt="a cat"), session)
    prepare_jobs([options(prompt=prompt) for prompt in ("a cat", "a dog", "a bird", "a cat")], session)
    prepare_jobs([options(prompt=prompt) for prompt in ("a bird", "a dog")], session)
    assert rows == [2, 3]  # each time with the empty negative prompt
