"""Every pair of command-line options in at least one run, on the tiny checkpoint and with progress bars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline
from cli.arguments import build_parser
from modules.core import paths
from modules.gallery import output
from tests import tiny, tiny_project
from tests.cli.combinations.option_table import (
    ALWAYS_TOGETHER,
    END_AT_ONCE,
    EXCLUSIONS,
    FOR_SDXL,
    NEEDS,
    OF_A_CLUSTER,
    VALUES,
    WITHOUT_A_PROMPT,
    Words,
    allowed,
)
from tests.cli.combinations.pairs import allowed_pairs, covering_rows, pairs_of
from tests.stable_fast.store.table_files import save_table

ROWS = covering_rows(VALUES, allowed)
PROMPT_LINES = ("a cat", '{"prompt": "a dog", "seed": 5}')
TINY_SIZE = ("64", "64")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for all runs, with every file listed in the table."""
    root = tiny_project.project(tmp_path_factory.mktemp("pairs"))
    vae = tiny.prefixed("", tiny.vae(seed=9))
    tiny_project.save_file(vae, root / "models" / "vae" / "other.safetensors")
    tiny_project.save_union(root / "models" / "controlnet" / "union.safetensors")
    half = np.zeros((64, 64), dtype=np.uint8)
    half[:, 32:] = 255
    Image.fromarray(half).save(root / "mask.png")
    (root / "styles.csv").write_text("name,prompt,negative_prompt\ndrawing,a {red|blue} drawing,photo\n")
    save_table(root / "table.json")
    (root / "prompts.txt").write_text("\n".join(PROMPT_LINES), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PROJECT_ROOT", root)
        asked = ["a cat", *TINY_SIZE, "--steps", "1", "--seed", "9", "--output-dir", str(root / "earlier")]
        assert pipeline.main([*asked, "--device", "cpu"]) == 0
    (made,) = (root / "earlier").rglob("*.png")
    made.rename(root / "made.png")
    return root


@pytest.fixture
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for the runs' pictures, with an earlier seed for --reuse-seed."""
    monkeypatch.setattr(paths, "PROJECT_ROOT", models)
    monkeypatch.setattr(output, "PROJECT_ROOT", tmp_path)
    for place in ("output", "elsewhere"):
        (tmp_path / place).mkdir()
        (tmp_path / place / output.LAST_SEED).write_text('{"seed": 4}', encoding="utf-8")
    for source in (*models.glob("*.png"), models / "prompts.txt", models / "table.json"):
        (tmp_path / source.name).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(row: dict[str, Words]) -> list[str]:
    """The row as a user would type it: prompt or --prompts, sizes, then options."""
    counts = (*row["number"], *row["batch"])
    options = [word for name, words in row.items() if name not in ("prompts", "number", "batch") for word in words]
    placed = (*row["prompts"], *TINY_SIZE, *counts) if row["prompts"] else ()
    return [*placed, *options]


def pictures_promised(row: dict[str, Words]) -> int:
    if row["compare"]:
        return 1
    lines = len(PROMPT_LINES) if row["prompts"][:1] == ("--prompts",) else 1
    return lines * int(row["number"][0]) * int(row["batch"][0]) * (2 if row["keep_first_pass"] else 1)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"run{ROWS.index(row)}")
def test_options_together(row: dict[str, Words], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = pipeline.main(words_of(row))
    out, err = capfd.readouterr()
    assert code == 0, f"{words_of(row)}\n{err}"
    assert "Traceback" not in err
    saved = list((folder / ("elsewhere" if row["output_dir"] else "output")).rglob("*.png"))
    told = [image["path"] for image in json.loads(out)["images"]] if row["json"] else out.splitlines()
    assert sorted(Path(path).resolve() for path in told) == sorted(path.resolve() for path in saved)
    assert len(saved) == pictures_promised(row)
    assert bool(row["quiet"]) != ("100%" in err), "the bar is on unless --quiet is given"


def test_each_pair_that_goes_together_is_in_a_run() -> None:
    covered = set[object]().union(*(pairs_of(row) for row in ROWS))
    assert not allowed_pairs(VALUES, allowed) - covered
    assert len(ROWS) < 40


def test_the_table_has_every_option_of_the_parser() -> None:
    names = {action.dest for action in build_parser()._actions} - {"help"}
    known = {*VALUES, *ALWAYS_TOGETHER, *FOR_SDXL, *END_AT_ONCE, *WITHOUT_A_PROMPT, *OF_A_CLUSTER}
    assert names == known, "give a new option its values in option_table.py"


def refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    code = pipeline.main(words)
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), words
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err, err


@pytest.mark.parametrize("exclusion", EXCLUSIONS, ids=lambda one: f"{one.first[0]}-{one.second[0]}")
def test_what_excludes_each_other_is_refused(
    exclusion: object, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (row,) = (
        row
        for a, b in combinations(VALUES, 2)
        for x in VALUES[a]
        for y in VALUES[b]
        if exclusion.holds_in(row := {a: x, b: y})  # type: ignore[attr-defined]
    )
    plain = {name: values[0] for name, values in VALUES.items()}
    refused(words_of(plain | row), capfd)


@pytest.mark.parametrize("name", NEEDS)
def test_what_lacks_what_it_needs_is_refused(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = {other: values[0] for other, values in VALUES.items()}
    refused(words_of(plain | {name: VALUES[name][1]}), capfd)


@pytest.mark.parametrize("end", END_AT_ONCE)
def test_what_ends_at_once_does_so_beside_every_option(
    end: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modules.stable_fast.doctor.diagnose.main", lambda *_, **__: 0)
    for values in VALUES.values():
        code = pipeline.main([*END_AT_ONCE[end], *values[1]])
        out, err = capfd.readouterr()
        assert code == 0 and err == "", values
        assert end != "list" or "euler" in out
