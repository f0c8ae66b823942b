"""--stable-fast-export: the file that it writes, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from modules.core import device
from modules.stable_fast.store import exchange
from modules.stable_fast.store.cache import cache_folder
from modules.stable_fast.store.tables import choices_path, write_choices
from tests.cli.command import run
from tests.stable_fast.store.table_files import LINEAR, RTX_4090

pytestmark = pytest.mark.own_cache


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on which one choice was tuned."""
    monkeypatch.setattr(device, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(exchange, "environment", lambda device: RTX_4090)
    write_choices(choices_path(cache_folder(), RTX_4090), RTX_4090, [LINEAR])


def test_the_table_is_written_and_its_path_printed(
    tuned: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    code, out, err = run(capsys, "--stable-fast-export", str(path))
    assert (code, out) == (0, f"{path}\n") and "NVIDIA GeForce RTX 4090: 1;" in err
    assert exchange.read_table(path).choices == (LINEAR,)
    code, out, err = run(capsys, "--stable-fast-export", str(path), "--json", "--quiet")
    assert (code, json.loads(out), err) == (0, {"table": str(path), "choices": 1}, "")


def test_a_place_that_cannot_be_written_is_one_sentence(
    tuned: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--stable-fast-export", str(tmp_path / "gone" / "mine.json"))
    assert (code, out) == (4, "") and "cannot be written" in err and err.count("\n") == 1


@pytest.mark.parametrize(("given", "words"), [
    (["mine.json", "--device", "cpu"], "needs an NVIDIA GPU"),
    (["model.safetensors"], "must end in .json"),
    (["mine.json", "--prompt", "a cat"], "leave out --prompt"),
    (["mine.json", "--stable-fast", "--stable-fast-tune", "30"], "leave out --stable-fast"),
])  # fmt: skip
def test_what_it_cannot_do_is_one_sentence(given: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--stable-fast-export", *given)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
