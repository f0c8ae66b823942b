"""The command line: its output, exit codes and error messages."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

import pipeline
from modules.gallery import output
from tests.cli.command import SMALL, run


def test_prints_the_path_of_each_picture_and_nothing_else(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "a cat", "64", "72", "2", "2", *SMALL[5:], "--seed", "7")
    pictures = [Path(line) for line in out.splitlines()]
    assert code == 0 and len(pictures) == 4 and len(set(pictures)) == 4
    assert all(path.parent.parent == project / "output" for path in pictures)
    assert Image.open(pictures[0]).size == (64, 72)
    assert [path.stem.split("-")[1] for path in pictures] == ["7", "8", "9", "10"]


def test_a_few_step_model_is_offered_its_settings_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = project / "models" / "checkpoints"
    (checkpoints / "tiny.safetensors").rename(checkpoints / "tiny_lightning_2step.safetensors")
    (project / "p.txt").write_text("a cat\na dog\n")
    _, _, err = run(capsys, "--prompts", str(project / "p.txt"), *SMALL[1:3], "--steps", "1")
    assert err.count("--preset lightning") == 1 and "--sampler euler --scheduler sgm_uniform --steps 2 --cfg 1" in err
    _, out, err = run(capsys, *SMALL[:3], "--preset", "lightning")
    assert "--preset" not in err
    assert (
        "Steps: 2, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 1,"
        in Image.open(out.strip()).text["parameters"]
    )


def test_json_for_scripts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SMALL, "--json", "--seed", "3")
    answer = json.loads(out)
    assert code == 0 and answer["images"][0]["seed"] == 3 and Path(answer["images"][0]["path"]).exists()
    assert answer["seconds"] > 0
    code, out, err = run(capsys, *SMALL, "--json", "--sampler", "eulr")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "eulr" in err


def test_json_answers_wrong_arguments_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "a", "--json", "--stable-fast=most")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "most" in err


def test_reuse_seed_repeats_the_last_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *SMALL, "--reuse-seed")
    assert code == 2 and "no seed to reuse" in err
    _, first, _ = run(capsys, *SMALL)
    _, second, _ = run(capsys, *SMALL, "--reuse-seed")
    assert Image.open(first.strip()).tobytes() == Image.open(second.strip()).tobytes()


def test_a_seed_that_cannot_be_noted_does_not_lose_the_picture(
    project: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (project / "output" / output.LAST_SEED).mkdir(parents=True)
    code, out, _ = run(capsys, *SMALL)
    assert code == 0 and Path(out.strip()).exists() and "--reuse-seed" in caplog.text


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    class Gone:
        def write(self, _text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stdout", Gone())
    assert pipeline.main([*SMALL, *form]) == 141
    assert len(list((project / "output").rglob("*.png"))) == 1


@pytest.mark.parametrize("asked", ["picture", "doctor"])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_bug_of_ours_is_one_line_and_its_details_are_kept(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: str, as_json: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("sizes differ\nat operation 7")

    monkeypatch.setattr("modules.generation.session.load_checkpoint", broken)
    monkeypatch.setattr("modules.stable_fast.doctor.diagnose.diagnose", broken)
    monkeypatch.setattr("tempfile.tempdir", str(project))
    words = SMALL if asked == "picture" else ["--doctor"]
    code, out, err = run(capsys, *words, *(["--json"] if as_json else []))
    (details,) = project.glob("lightdiffusion-error-*.txt")
    assert code == 1 and err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err
    assert "inside the program" in err and "RuntimeError: sizes differ" in err and str(details) in err
    assert "Traceback" in details.read_text() and "at operation 7" in details.read_text()
    assert (json.loads(out) == {"error": err.removeprefix("error: ").strip(), "exit_code": 1}) if as_json else not out


def test_details_that_cannot_be_kept_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("modules.generation.session.load_checkpoint", broken)
    monkeypatch.setattr("tempfile.tempdir", str(project / "gone"))
    code, out, err = run(capsys, *SMALL, "--json")
    assert code == 1 == json.loads(out)["exit_code"] and "Traceback" in err and "(RuntimeError)" in err


def test_an_unwritable_output_folder_is_told_before_the_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "file").write_text("in the way")
    code, _, err = run(capsys, *SMALL, "--output-dir", str(project / "file" / "out"))
    assert code == 4 and "--output-dir" in err


def test_a_full_disk_leaves_no_half_picture(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = run(capsys, *SMALL)
    assert code == 4 and "disk is full" in err and out == ""
    assert [p for p in (project / "output").rglob("*") if p.is_file()] == []


def test_memory_holds_for_the_session(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from modules.generation.session import Session

    asked: list[object] = []
    create = Session.__init__

    def spy(session: Session, *folders: object, memory: str | None = None, **named: object) -> None:
        asked.append(memory)
        create(session, *folders, memory=memory, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", spy)
    assert run(capsys, *SMALL, "--memory", "low")[0] == run(capsys, *SMALL)[0] == 0
    assert asked == ["low", None]
    code, _, err = run(capsys, *SMALL, "--memory", "lwo")
    assert code == 2 and "choose auto, high or low (did you mean low?)" in err


def test_the_doctor_says_what_fits(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("modules.stable_fast.doctor.diagnose.check_all", lambda device, dtype: [])
    code, out, _ = run(capsys, "--doctor", "--checkpoint", "tiny")
    [line] = [line for line in out.splitlines() if line.startswith("memory ")]
    assert code == 0 and "tiny.safetensors needs UNet" in line
    code, out, err = run(capsys, "--doctor", "--json", "--checkpoint", "none-such")
    assert code == json.loads(out)["exit_code"] == 3 and '"none-such"' in err
