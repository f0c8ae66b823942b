"""The comparison with and without Stable-Fast is correct."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from modules.core.errors import OptionsError
from modules.core.sizes import Sides
from modules.gallery.picture import Picture
from modules.generation.options import GenerationOptions, InitImage
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.stable_fast.config import DISABLE_VARIABLE
from modules.tasks import compare as compare_file
from modules.tasks.compare import Comparison, compare
from tests import tiny_project

SMALL = GenerationOptions(prompt="a cat", width=64, height=64, steps=2, seed=1, cfg=3.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path_factory.mktemp("compare")))


@pytest.fixture(scope="module")
def comparison(session: Session) -> Comparison:
    options = GenerationOptions(prompt="a cat", width=64, height=64, steps=2, number=3, batch=2, cfg=3.0)
    return compare(options, session)


def test_the_pictures_are_nearly_equal_in_float32(comparison: Comparison) -> None:
    assert comparison.psnr >= 50 and comparison.max_difference <= 1
    assert comparison.eager.picture.seed == comparison.accelerated.picture.seed


def test_both_sides_are_named_timed_and_measured(comparison: Comparison) -> None:
    eager, fast = comparison.eager, comparison.accelerated
    assert (eager.level, eager.reason) == ("off", "")
    assert (fast.asked, fast.level) == ("full", "fused") and "NVIDIA GPU" in fast.reason
    assert min(eager.first_seconds, eager.steady_seconds, fast.first_seconds, fast.steady_seconds) > 0
    assert eager.peak_bytes is fast.peak_bytes is None  # on a CPU, the peak covers the whole process so far
    assert "Stable-Fast" not in eager.picture.parameters and "Stable-Fast: full" in fast.picture.parameters


def test_the_picture_shows_both_sides(comparison: Comparison) -> None:
    both = np.asarray(comparison.image)
    assert both.shape == (64, 128, 3)
    assert (both[:, :64] == np.asarray(comparison.eager.picture.image)).all()
    assert (both[:, 64:] == np.asarray(comparison.accelerated.picture.image)).all()


def test_numbers_are_json_and_text(comparison: Comparison) -> None:
    answer = json.loads(json.dumps(comparison.to_dict()))
    assert answer["eager"]["level"] == "off" and answer["stable_fast"]["level"] == "fused"
    assert answer["max_difference"] == comparison.max_difference
    rows = comparison.to_text().splitlines()
    assert [row.partition(":")[0].strip() for row in rows[:2]] == ["off", "fused"]
    assert rows[2] == f"fused instead of full: {comparison.accelerated.reason}" and len(rows) == 5


def test_peak_memory_is_reported_if_it_was_measured(comparison: Comparison) -> None:
    measured = replace(comparison, eager=replace(comparison.eager, peak_bytes=3 << 20))
    assert measured.to_text().count("peak memory 3 MiB") == 1


def test_nothing_accelerated_is_not_called_faster(session: Session) -> None:
    text = compare(replace(SMALL, stable_fast="graph"), session).to_text()
    assert "off instead of graph: CUDA graphs need an NVIDIA GPU" in text and "times as fast" not in text


def test_both_first_pictures_find_the_loras_merged(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(SMALL, prompt="a cat <lora:ink:0.8>")
    network = session.model(request).unet.module
    sums = [weight_sum(network)]  # without the LoRA

    def spied(options: GenerationOptions, session: Session, **how: Any) -> Iterator[Picture]:
        sums.append(weight_sum(network))
        return generate(options, session, **how)

    monkeypatch.setattr(compare_file, "generate", spied)
    compare(request, session)
    without, *with_lora = sums
    assert len(with_lora) == 4 and len(set(with_lora)) == 1 and with_lora[0] != without


def weight_sum(network: nn.Module) -> float:
    return sum(weight.double().sum().item() for weight in network.parameters())


def test_what_the_environment_switches_off_has_nothing_to_compare(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "off")
    with pytest.raises(OptionsError, match=f"nothing to compare.*{DISABLE_VARIABLE}=off"):
        compare(SMALL, session)


def test_a_member_of_a_batch_is_compared_as_itself(session: Session) -> None:
    """The third picture of a batch, as requested by `--from-image`."""
    member = replace(SMALL, batch=3, only=2)
    [alone] = generate(member, session)
    eager = compare(member, session).eager.picture
    assert eager.seed == alone.seed == 3 and eager.image.tobytes() == alone.image.tobytes()


def test_a_picture_that_is_extended_keeps_its_own_size(session: Session, tmp_path: Path) -> None:
    photo = tiny_project.save_photo(tmp_path / "photo.png", 64, 64)
    init = InitImage(image=photo, outpaint=Sides(left=8, bottom=16))
    made = compare(GenerationOptions(prompt="a cat", steps=1, seed=1, init=init), session)
    assert made.eager.picture.image.size == made.accelerated.picture.image.size == (72, 80)


def test_a_difference_would_be_seen(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    original = compare_file.run_side

    def spoiled(options: GenerationOptions, *rest: object) -> compare_file.Side:
        return original(replace(options, seed=options.stable_fast == "off"), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compare_file, "run_side", spoiled)
    result = compare(GenerationOptions(prompt="a", width=64, height=64, steps=1), session)
    assert result.psnr < 30 and result.max_difference > 20


def test_it_leaves_the_session_as_it_was(session: Session, comparison: Comparison) -> None:
    options = GenerationOptions(prompt="a cat", width=64, height=64, steps=2, seed=1)
    before = list(generate(options, session))[0].image.tobytes()
    compare(options, session)
    assert list(generate(options, session))[0].image.tobytes() == before


def test_on_a_cpu_eight_bits_are_emulated_and_that_is_told(session: Session) -> None:
    options = GenerationOptions(
        prompt="a cat", width=64, height=64, steps=2, cfg=3.0, stable_fast="fused", stable_fast_precision="int8"
    )
    found = compare(options, session)
    assert found.emulated == found.to_dict()["emulated"] == "int8" and 20 < found.psnr < 80 and found.ssim < 1
    assert "int8 was emulated: the pictures are those of a card that has it, not the times" in found.to_text()
    assert "times as fast" not in found.to_text() and not session.emulated
