"""The report: status line for people, JSON for programs, break-even from measured times."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from modules.stable_fast.config import Level
from modules.stable_fast.report import CompileReport, Report
from modules.stable_fast.runtime import timing
from modules.stable_fast.runtime.timing import StepTimer


class FakeTimer(StepTimer):
    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self._milliseconds = milliseconds

    def median_ms(self) -> float:
        return self._milliseconds


def measured(eager_ms: float | None) -> Report:
    report = Report(asked="full", level="full", steps_per_image=20)
    shape = report.shape("1x4x64x64 float16, 2 rows")
    shape.warm_up_seconds, shape.eager_ms, shape.steps = 3.0, eager_ms, FakeTimer(5.0)
    return report


def test_status_line_and_break_even() -> None:
    report = measured(eager_ms=15.0)
    assert report.break_even_images() == 15  # 3 s of warm-up, 0.2 s saved per image
    assert report.status_line() == ("Stable-Fast: full, 5.0 ms/step (eager 15.0), warm-up 3.0 s, pays from image 15")


@pytest.mark.parametrize("eager_ms", [None, 4.0])
def test_no_promise_where_nothing_is_known_or_gained(eager_ms: float | None) -> None:
    report = measured(eager_ms)
    assert report.break_even_images() is None and "pays" not in report.status_line()


def test_a_lower_level_is_said_with_its_reason() -> None:
    report = Report(asked="full", level="full")
    report.lower("fused", "no memory to capture")
    assert report.status_line() == "Stable-Fast: fused instead of full (no memory to capture)"


def test_every_reason_for_the_level_is_named() -> None:
    report = Report(asked="full", level="fused", reason="LIGHTDIFFUSION_STABLE_FAST=fused")
    shape = report.shape("1x4x64x64 float16, 2 rows")
    shape.level, shape.reason = "off", "not enough memory"
    assert report.in_force == ("off", "LIGHTDIFFUSION_STABLE_FAST=fused; not enough memory")
    report.lower("off", "it has hooks")
    report.shape("1x4x32x32 float16, 2 rows")
    assert report.in_force == ("off", "LIGHTDIFFUSION_STABLE_FAST=fused; it has hooks")


def test_one_shape_at_a_lower_level() -> None:
    report = measured(eager_ms=None)
    large = report.shape("1x4x256x256 float16, 2 rows")
    large.level, large.reason = "fused", "its graph needs 5000 MiB"
    assert report.status_line() == "Stable-Fast: fused instead of full (its graph needs 5000 MiB), warm-up 3.0 s"
    report.shape("1x4x64x64 float16, 2 rows")
    assert report.status_line().startswith("Stable-Fast: full, 5.0 ms/step")


def test_json_and_text_hold_the_same_facts() -> None:
    report = measured(eager_ms=15.0)
    report.programs.append(
        CompileReport(
            nodes_before=1134,
            nodes_after=550,
            matches={"geglu": {"geglu": 16}, "concat": {}},
            stage_nodes={"step": 369},
            trace_seconds=1.5,
            compile_seconds=1.8,
        )
    )
    report.choices = {"linear_epilogue (2, 3)": "cublas"}
    data = json.loads(report.to_json())
    assert data["programs"][0]["matches"]["geglu"] == {"geglu": 16}
    assert data["break_even_images"] == 15 and data["counters"]["traces"] == 0
    text = report.to_text()
    for fact in ("1134 operations, 550 after fusion", "geglu 16", "concat: no match", "step 369", "cublas"):
        assert fact in text


def test_the_shape_that_ran_last_is_the_latest() -> None:
    report = Report(asked="full", level="full")
    first, second = report.shape("a"), report.shape("b")
    assert report.latest is second
    assert report.shape("a") is first and report.latest is first


def test_timer_has_the_median_of_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Mock(return_value=0.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock))
    timer = StepTimer(most=3)
    assert timer.median_ms() is None
    for seconds in (0.03, 0.02, 0.01, 5.0, 5.0):
        with timer.span(torch.device("cpu")):
            clock.return_value += seconds
    assert timer.median_ms() == pytest.approx(20)
    assert clock.call_count == 6


def test_the_status_line_tells_what_a_skipped_step_takes() -> None:
    report = Report(asked="full", level=Level.FULL)
    for name, ms in (("1x4x64x64, outer blocks", 1.0), ("1x4x64x64", 4.0)):
        report.shape(name).steps._spans = [(0.0, ms / 1000)]
    assert "4.0 ms/step, 1.0 ms/skipped step" in report.status_line()
    report.shape("1x4x64x64, outer blocks")  # the last step is a skipped one
    assert "4.0 ms/step, 1.0 ms/skipped step" in report.status_line()
    report.shape("1x4x8x8").steps._spans = [(0.0, 0.002)]
    assert "skipped" not in report.status_line()
