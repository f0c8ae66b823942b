"""The scripts that judge the demo models: where they write."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tools.demo_model.judging.written import file_to_write


def test_a_missing_folder_is_made_before_the_work(tmp_path: Path) -> None:
    path = file_to_write(str(tmp_path / "new" / "deeper" / "scores.json"))
    path.write_text("{}")
    assert path == tmp_path / "new" / "deeper" / "scores.json"


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--json", type=file_to_write)
    with pytest.raises(argparse.ArgumentError, match=r"cannot be made \(.*\); name another"):
        parser.parse_args(["--json", str(tmp_path / "file" / "scores.json")])
