"""Users' tables merged into shipped ones: the faster row is kept, byte by byte the same however it is repeated."""

from __future__ import annotations

import errno
import itertools
import shutil
from pathlib import Path

import pytest

from modules.stable_fast.store.exchange import read_table
from modules.stable_fast.store.tables import SHIPPED, Measured
from tests.stable_fast.store.table_files import RTX_4090, save_table
from tools import merge_tables
from tools.merge_tables import main


def row(size: int, name: str, **milliseconds: float) -> Measured:
    return Measured("linear_epilogue", (size, 320, True, "float16"), name, milliseconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shipped tables of two cards."""
    shipped = tmp_path / "tuned"
    shipped.mkdir()
    save_table(shipped / "sm89-128.json", row(2, "cublas", cublas=0.3, tiles=0.4), row(1, "tiles", tiles=0.2))
    shutil.copy(SHIPPED / "sm90-132.json", shipped)
    return shipped


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def merge(folder: Path, *files: Path) -> int:
    return main([*map(str, files), "--into", str(folder)])


def test_the_row_whose_winner_took_less_time_is_kept(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    mine = save_table(
        tmp_path / "mine.json",
        row(4, "tiles", tiles=0.1),
        row(3, "cublas", cublas=0.5),
        row(2, "tiles", cublas=0.35, tiles=0.25),  # faster than what is shipped
        row(1, "cublas", cublas=0.21),  # slower
        torch="2.14.0",
    )
    assert merge(folder, mine) == 0
    merged = read_table(folder / "sm89-128.json")
    assert [(each.key[0], each.name) for each in merged.choices] == [
        (2, "tiles"), (1, "tiles"), (3, "cublas"), (4, "tiles"),
    ]  # fmt: skip
    assert merged.choices[0].milliseconds == {"cublas": 0.35, "tiles": 0.25}
    assert merged.environment == RTX_4090 | {"torch": "2.13.0+cu130, 2.14.0"}
    assert contents(folder)["sm90-132.json"] == before["sm90-132.json"]


def test_a_repeated_merge_changes_no_byte(folder: Path, tmp_path: Path) -> None:
    mine = save_table(tmp_path / "mine.json", row(2, "tiles", tiles=0.12345678), row(9, "cublas", cublas=1.0), gpu="B")
    assert merge(folder, mine) == 0
    once = contents(folder)
    for _ in range(2):
        assert merge(folder, mine, folder / "sm90-132.json") == 0
        assert contents(folder) == once


def test_the_order_of_the_files_does_not_matter(folder: Path, tmp_path: Path) -> None:
    files = [
        save_table(tmp_path / "a.json", row(5, "cublas", cublas=0.5, tiles=0.7), gpu="A"),
        save_table(tmp_path / "b.json", row(5, "cublas", cublas=0.5, tiles=0.6), row(6, "tiles", tiles=1.0), gpu="B"),
        save_table(tmp_path / "c.json", row(5, "tiles", tiles=0.5), row(0, "tiles", tiles=1.0), gpu="C"),
    ]
    results = set()
    for number, order in enumerate(itertools.permutations(files)):
        copy = shutil.copytree(folder, tmp_path / str(number))
        assert merge(copy, *order) == 0
        results.add((copy / "sm89-128.json").read_bytes())
    assert len(results) == 1


def test_a_new_card_gets_a_file(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    mine = save_table(tmp_path / "mine.json", chip="sm86-82", gpu="NVIDIA GeForce RTX 3090")
    assert merge(folder, mine) == 0
    assert contents(folder) == before | {"sm86-82.json": mine.read_bytes()}


def test_a_row_without_a_time_says_nothing(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    mine = save_table(tmp_path / "mine.json", row(2, "tiles"), row(1, "a", a=0.0), row(7, "cublas", tiles=0.1))
    assert merge(folder, mine) == 0
    assert contents(folder) == before


def test_what_was_faster_and_wrong_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert merge(folder, save_table(tmp_path / "mine.json", row(8, "cublas", cublas=0.2, tiles=0.1))) == 0
    out = capsys.readouterr().out
    assert "1 are new" in out and "wrong result: tiles for" in out


def test_one_bad_file_and_nothing_is_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    good, bad = save_table(tmp_path / "good.json", row(9, "tiles", tiles=1.0)), tmp_path / "bad.json"
    bad.write_text('{"format": 1}')
    assert merge(folder, good, bad) == 2
    err = capsys.readouterr().err
    assert str(bad) in err and err.count("\n") == 1 and contents(folder) == before


def test_a_folder_that_does_not_exist_is_named_with_a_remedy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "misspelt"
    assert merge(missing, folder / "sm89-128.json") == 2
    err = capsys.readouterr().err
    assert str(missing) in err and "make it first" in err and err.count("\n") == 1
    assert not missing.exists()


def test_a_table_that_cannot_be_written_is_told_with_a_remedy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merge_tables, "write_whole", full)
    assert merge(folder, save_table(tmp_path / "mine.json", row(9, "tiles", tiles=1.0))) == 4
    err = capsys.readouterr().err
    assert "No space left on device" in err and "another folder with --into" in err and err.count("\n") == 1
