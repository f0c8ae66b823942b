"""--stable-fast-report: text or JSON depending on the file name; never overwrites a file that is not a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.command import FAST, run


def test_the_report_is_text_or_json_by_its_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report.txt", "report.json", "REPORT.JSON"):
        assert run(capsys, *FAST, "--stable-fast-report", str(project / name))[0] == 0
    assert (project / "report.txt").read_text().startswith("Stable-Fast: fused instead of full")
    assert all(json.loads((project / name).read_text())["asked"] == "full" for name in ("report.json", "REPORT.JSON"))


def test_the_report_may_go_to_standard_output_behind_the_paths(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, *FAST, "--stable-fast-report", "-")
    path, first, *rest = out.splitlines()
    assert code == 0 and Path(path).exists() and first.startswith("Stable-Fast: fused") and "Program 1" in rest
    code, out, err = run(capsys, *FAST, "--stable-fast-report", "-", "--json")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "standard output" in err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("gone/report.txt", 4, ["gone/report.txt", "No such file"]),
        ("models", 4, ["models", "Is a directory"]),
        ("photo.png", 2, ["photo.png", ".txt"]),
        ("models/checkpoints/tiny.safetensors", 2, ["tiny.safetensors", ".txt"]),
        ("two\nlines/report.txt", 4, ["two\\nlines/report.txt'", "No such file"]),
        ("two\nlines.png", 2, ["two\\nlines.png'", ".txt"]),
    ],
)
def test_a_report_that_cannot_be_is_told_before_the_work(
    project: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, words: list[str]
) -> None:
    got, out, err = run(capsys, *FAST, "--stable-fast-report", str(project / name))
    assert (got, out) == (code, "") and err.count("\n") == 1 and all(word in err for word in words), err
    assert not list((project / "output").rglob("*.png"))


def test_a_report_without_a_name_is_one_sentence(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *FAST, "--stable-fast-report", "")
    assert (code, out) == (2, "") and "name of a file" in err and "written to ." not in err


@pytest.mark.parametrize("option", ["--prompts", "--img2img", "--control-image"])
def test_a_report_overwrites_nothing_that_is_read(
    project: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    read = project / "read.txt"
    if option == "--prompts":
        read.write_text("a cat")
    else:
        Image.new("RGB", (64, 64)).save(read, format="PNG")
        (project / "models" / "controlnet" / "x.safetensors").touch()
    before = read.read_bytes()
    (project / "same.txt").symlink_to(read)
    words = [] if option == "--prompts" else ["a cat"]
    words += ["--control-net", "x"] if option == "--control-image" else []
    given = [*words, "64", "64", option, str(read), "--stable-fast"]
    code, out, err = run(capsys, *given, "--stable-fast-report", str(project / "same.txt"))
    assert (code, out) == (2, "") and err.count("\n") == 1 and "same.txt" in err and option in err, err
    assert read.read_bytes() == before


def test_looking_at_the_reports_place_changes_nothing_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "old.txt").write_text("of yesterday")
    for name in ("old.txt", "new.txt"):
        assert run(capsys, *FAST, "--sampler", "eulr", "--stable-fast-report", str(project / name))[0] == 2
    assert (project / "old.txt").read_text() == "of yesterday" and not (project / "new.txt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a place that fails when it is written to")
def test_a_report_that_fails_at_the_end_loses_no_picture(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *FAST, "--json", "--stable-fast-report", "/dev/full")
    answer = json.loads(out)
    assert code == 4 == answer["exit_code"] and "/dev/full" in answer["error"]
    assert Path(answer["images"][0]["path"]).exists() and answer["stable_fast"]["level"] == "fused"
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
