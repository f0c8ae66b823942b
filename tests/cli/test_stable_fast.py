"""--stable-fast and related options: comparing, tuning, and the environment variable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pipeline
from modules.stable_fast import Table
from modules.stable_fast.store.ready import Effort
from tests.cli.command import FAST, SMALL, run
from tests.stable_fast.store.table_files import LINEAR, save_table


@pytest.mark.parametrize("arguments", [FAST, [*SMALL, "--compare"], [*SMALL, "--prio-speed"]])
def test_an_unknown_word_in_the_environment_stops_it(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "bogus")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert all(word in err for word in ("LIGHTDIFFUSION_STABLE_FAST", "bogus", "off", "graph", "fused", "full"))
    assert run(capsys, *SMALL)[0] == 0  # no level is requested that could be lowered


def test_a_comparison_names_the_level_in_force(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *SMALL, "--compare", "--json")
    side = json.loads(out)["compare"]["stable_fast"]
    assert code == 0 and (side["asked"], side["level"]) == ("full", "fused") and "NVIDIA" in side["reason"]
    assert "fused: first picture" in err and "full: first picture" not in err and "peak memory" not in err


def test_a_comparison_with_what_the_environment_switched_off_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "no")
    code, out, err = run(capsys, *SMALL, "--compare")
    assert (code, out) == (2, "") and "nothing to compare" in err and "LIGHTDIFFUSION_STABLE_FAST" in err


def test_tuning_on_a_cpu_is_told_to_have_no_effect(
    project: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(capsys, *FAST, "--stable-fast-tune", "30")[0] == 0
    assert [record.message for record in caplog.records if "--stable-fast-tune" in record.message] == [
        "--stable-fast-tune has no effect on cpu: it times the kernels of an NVIDIA GPU."
    ]


def test_a_table_reaches_every_network_and_a_cpu_is_told_that_it_has_no_effect(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[Table] = []
    monkeypatch.setattr(
        "modules.stable_fast.engine.make_ready", lambda *_, table, **__: given.append(table) or Effort()
    )
    assert pipeline.main([*FAST, "--stable-fast-table", str(save_table(tmp_path / "table.json"))]) == 0
    assert [table.choices for table in given] == [(LINEAR,)] * 2
    assert "The table of kernels has no effect on cpu" in caplog.text


def test_a_bad_table_stops_it_in_one_sentence(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text('{"format": 1}')
    for name in ("bad.json", "gone.json"):
        code, out, err = run(capsys, *FAST, "--stable-fast-table", str(tmp_path / name))
        assert (code, out) == (2, "") and name in err and err.count("\n") == 1


def test_the_time_for_tuning_reaches_every_network(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        "modules.stable_fast.engine.make_ready", lambda run, device, seconds, **_: asked.append(seconds) or Effort()
    )
    for given, seconds in ((["--stable-fast-tune", "12"], 12.0), ([], 0.0)):
        assert pipeline.main([*SMALL, "--stable-fast", *given]) == 0
        assert asked == [seconds, seconds]  # UNet and VAE decoder are compiled on a CPU
        asked.clear()
