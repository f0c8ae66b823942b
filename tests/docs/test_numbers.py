"""Numbers in the documentation match benchmarks/results, and file names in it exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from benchmarks.charts import draw, numbers
from benchmarks.charts.marked_places import filled, names_of
from benchmarks.charts.numbers import WRITERS
from benchmarks.networks.namesake import NAMESAKES, PACKAGE
from tests.docs.fences import DOCUMENTS, ROOT

PATH = re.compile(r"`([\w./-]*\w\.(?:py|sh|bat|toml|txt|json|yml|md))`")
# The user's own files.
NOT_OURS = {
    "prompts.txt",
    "output/stars.json",
    "animals/pet.txt",
    "settings.json",
    "model_folders.toml",
    "prompts_done.jsonl",
} | {
    *("name.json", "models/wildcards/name.txt"),  # beside the users' own models
}
NOTEBOOK = ROOT / "docs" / "log.md"  # with file names as of each day


def test_every_number_is_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    code = draw.main(["--check"])
    assert code == 0, f"run `python -m benchmarks.charts.draw`: {capsys.readouterr().out}"


def test_every_generated_table_is_shown() -> None:
    shown = [name for document in DOCUMENTS for name in names_of(document.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(WRITERS)


def test_a_changed_number_is_found_and_mended() -> None:
    page = "before\n<!-- numbers: ms -->\n| 4.7 |\n<!-- end of numbers -->\nafter\n"
    mended = filled(page, {"ms": lambda: ["| 4.8 |"]})
    assert mended == page.replace("4.7", "4.8")
    assert filled(mended, {"ms": lambda: ["| 4.8 |"]}) == mended


def test_the_namesake_has_a_line_only_where_both_of_its_ways_were_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"label": label, "ms": ms} for label, ms in zip(("full", *NAMESAKES), (4.7, 6.1, 6.6), strict=True)]
    result = {"machine": {"versions": {PACKAGE: "1.0.8"}}, "rows": rows}
    monkeypatch.setattr(numbers, "gpu_results", lambda: {"unet-sd15-512-b2-float16-namesake": result})
    (line,) = filter(None, numbers.about_namesake())
    assert line.startswith("SD1.5, one step at 512 x 512") and "1.0.8: it took 6.1 ms as it comes and 6.6 with" in line
    rows[-1] = {"label": NAMESAKES[1], "error": "RuntimeError"}
    assert numbers.about_namesake() == []


@pytest.mark.parametrize(
    "page",
    [
        "<!-- numbers: unknown -->\n<!-- end of numbers -->\n",
        "<!-- numbers: ms -->\n| 4.8 |\n",
        "<!-- numbers: ms -->\n<!-- numbers: ms -->\n<!-- end of numbers -->\n",
        "<!-- numbers:ms -->\n<!-- end of numbers -->\n",
    ],
)
def test_a_place_that_nothing_can_fill_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="place for numbers"):
        filled(page, {"ms": lambda: ["| 4.8 |"]})


def test_every_file_that_is_named_exists() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("the tree is no git checkout")
    ends = {"/".join(parts[start:]) for parts in map(split, listed.splitlines()) for start in range(len(parts))}
    for document in DOCUMENTS:
        if document != NOTEBOOK:
            named = {name.removeprefix("./") for name in PATH.findall(document.read_text(encoding="utf-8"))}
            assert named - NOT_OURS <= ends, f"{document.name}: {named - NOT_OURS - ends}"


def split(path: str) -> list[str]:
    return path.split("/")
