"""--cluster on the command line: what does not fit together is refused in one sentence, and Ray is not imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.runs import cluster
from tests.cli.conftest import Run
from tests.house.source_tree import When, in_rooms, source_files
from ui import app

LOCAL = ("--cluster", "local")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("a cat", *LOCAL), "give --prompts FILE"),
        (("a cat", "--workers", "2"), "give --cluster local too"),
        (("--prompts", "p.txt", *LOCAL, "--workers", "0"), "give a number from 1 to"),
        (("--prompts", "p.txt", *LOCAL, "--device", "cuda:1"), "Ray chooses each worker's GPU"),
        (("--prompts", "p.txt", *LOCAL, "--stable-fast", "--stable-fast-report", "r.txt"), "remove one of them"),
        (("--prompts", "p.txt", *LOCAL, "--reuse-seed"), "cannot be combined with --prompts"),
    ],
)
def test_what_does_not_fit_is_refused(run: Run, words: tuple[str, ...], told: str) -> None:
    code, pictures, err = run(*words)
    assert code == 2 and not pictures and told in err and err.count("\n") == 1


def test_without_ray_the_install_line_is_told(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    code, _, err = run("--prompts", str(root / "p.txt"), *LOCAL)
    assert code == 2 and "pip install -r requirements-cluster.txt" in err and err.count("\n") == 1


def test_a_line_of_the_file_cannot_choose_a_cluster(run: Run, root: Path) -> None:
    (root / "p.txt").write_text('{"prompt": "a cat", "cluster": "local"}')
    assert '"cluster" applies to the whole run' in run("--prompts", str(root / "p.txt"))[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--workers", "2"), "give --cluster local too"),
        ((*LOCAL, "--gather-ms", "5"), "--most-together and --gather-ms"),
        ((*LOCAL, "--device", "cuda:0"), "Ray chooses"),
        ((*LOCAL, "--stable-fast-table", "t.json"), "--stable-fast-table is about one GPU"),
    ],
)
def test_the_page_refuses_the_same(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(list(words)) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_front_ends_start_without_ray() -> None:
    outside = [file for file in source_files() if not file.name.startswith(("modules/cluster", "benchmarks"))]
    starts = [f"{file.name}:{found.line}" for file in outside for found in file.imports if found.when is When.START
              and found.target.startswith(("ray", "modules.cluster"))]  # fmt: skip
    assert not starts, "only a call with --cluster imports Ray"
    assert any(found.target == "ray" for file in in_rooms("modules") for found in file.imports), "it is seen at all"
