"""The progress bar while pictures are made: one bar per phase, lines printed in between, and Ctrl-C in each phase."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.console import ProgressBar
from cli.streams import forgive_errors
from modules.gallery.output import OutputFolder
from modules.gallery.picture import Picture
from modules.generation.progress import Progress
from tests.cli.conftest import QUICK, SIZE, Run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.int16)


def begun(err: str, label: str) -> int:
    """Counts the bars with this label."""
    return err.count(f"{label}:   0%")


def step(bar: ProgressBar, phase: str, number: int, steps: int, batch: int = 1) -> None:
    bar(Progress(phase=phase, batch=batch, batches=1, step=number, steps=steps))


def test_batches_of_several_are_the_pictures_of_their_seeds(run: Run) -> None:
    code, paths, err = run("a cat", *SIZE, "2", "2", *QUICK, "--seed", "11")
    assert code == 0, err
    assert [path.stem.split("-")[1] for path in paths] == ["11", "12", "13", "14"]
    assert all(f"{phase} {batch}/2" in err for phase in ("sampling", "decoding") for batch in (1, 2))
    for seed, path in enumerate(paths, start=11):
        alone = run("a cat", *SIZE, *QUICK, "--seed", str(seed), "--quiet")[1][0]
        assert np.abs(pixels(path) - pixels(alone)).max() <= 1  # a batch adds up in another order


def test_both_passes_and_a_file_of_prompts(run: Run, root: Path) -> None:
    code, paths, err = run("a cat", *SIZE, "1", "2", *QUICK, "--hires-fix", "--hires-scale", "1.5", "--keep-first-pass")
    assert (code, [Image.open(path).size for path in paths]) == (0, [(64, 64)] * 2 + [(96, 96)] * 2), err
    (root / "prompts.txt").write_text('a cat\n{"prompt": "", "batch_size": 2, "seed": -1}\na bird')
    code, paths, err = run("--prompts", str(root / "prompts.txt"), *SIZE, *QUICK)
    assert (code, len(paths)) == (0, 4) and begun(err, "sampling") == 3 == begun(err, "decoding"), err


def test_a_line_in_the_middle_of_a_phase_does_not_end_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(quiet=False)
    step(bar, "decoding", 1, 3)
    with bar.aside():
        print("a path")
    step(bar, "decoding", 2, 3)
    assert bar.is_open
    step(bar, "decoding", 3, 3)
    out, err = capsys.readouterr()
    assert out == "a path\n" and not bar.is_open and "3/3" in err and begun(err, "decoding") == 1


def test_a_repeated_phase_gets_a_new_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(quiet=False)
    for steps in (2, 3):
        for number in range(1, steps + 1):
            step(bar, "sampling", number, steps)
    step(bar, "sampling", 1, 5)  # a request that failed here
    step(bar, "sampling", 1, 4)
    assert bar.is_open
    bar.close()
    err = capsys.readouterr().err
    assert begun(err, "sampling") == 4 and all(end in err for end in ("2/2", "3/3", "1/5", "1/4"))


def test_a_warning_between_two_pictures_has_its_own_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forgive_errors()  # before the log looks up its stream, as in cli/main.py
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    saved = OutputFolder.save

    def save(folder: OutputFolder, picture: Picture) -> Path:
        logging.getLogger("modules.gallery.output").warning("Something to know.")
        return saved(folder, picture)

    monkeypatch.setattr(OutputFolder, "save", save)
    code, _, err = run("a cat", *SIZE, "1", "2", *QUICK)
    assert code == 0 and err.replace("\r", "\n").splitlines().count("Something to know.") == 2, err


@pytest.mark.parametrize(("phase", "kept"), [("sampling", 0), ("decoding", 1), ("hires", 2)])
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_in_each_phase_keeps_what_is_finished(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, phase: str, kept: int, as_json: bool
) -> None:
    shown = ProgressBar.__call__

    def pressed(bar: ProgressBar, event: Progress) -> None:
        shown(bar, event)
        if (event.phase, event.step) == (phase, 1):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "__call__", pressed)
    two_passes = ("--hires-fix", "--hires-scale", "1.5", "--keep-first-pass")
    code, out, err = run("a cat", *SIZE, "1", "2", *QUICK, *two_passes, *(["--json"] if as_json else []))
    pictures = sorted((root / "output").rglob("*.png"))
    assert code == 130 and err.count("error: Cancelled") == 1 and len(pictures) == kept, err
    assert ("Finished pictures are kept." in err) == bool(kept)
    if as_json:
        answer = json.loads(str(out[0]))
        assert [Path(image["path"]) for image in answer.get("images", [])] == pictures and answer["exit_code"] == 130
    else:
        assert out == pictures
    for picture in pictures:
        Image.open(picture).load()
