"""--list: the names of one kind of model or option, and where to put files if there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import run


def test_without_styles_their_file_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--list", "styles")
    assert (code, out, err.count("\n")) == (0, "", 1) and str(project / "styles.csv") in err


def test_lists(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--list", "checkpoints")[1].splitlines() == ["tiny.safetensors"]
    assert "dpmpp_2m" in run(capsys, "--list", "samplers")[1].splitlines()
    assert "karras" in run(capsys, "--list", "schedulers")[1].splitlines()
    (project / "styles.csv").write_text("name,prompt\nink drawing,a\n---,\n---,\n")
    (project / "models" / "wildcards" / "colour.txt").write_text("red\n")
    assert run(capsys, "--list", "style")[1].splitlines() == ["ink drawing", "---"]
    assert run(capsys, "--list", "wildcards")[1].splitlines() == ["colour.txt"]
    code, out, err = run(capsys, "--list", "lora")
    assert (code, out, err.count("\n")) == (0, "", 1) and str(project / "models" / "loras") in err
