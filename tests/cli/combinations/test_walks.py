"""The command line in a real terminal, as for a user: progress bars, several pictures, Ctrl-C in each phase."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pexpect
import pytest
from PIL import Image

from tests import tiny_project

ROOT = Path(__file__).parents[3]
PATIENCE = 120  # seconds; only needed on a busy machine
SMALL = ["64", "64", "1", "1", "--steps", "2"]
COLUMNS = 80


class Walker:
    """One process with its own terminal; each call runs the command line once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        arguments = ["-m", "tests.cli.combinations.walker", str(root)]
        self.terminal = pexpect.spawn(
            sys.executable, arguments, cwd=str(ROOT), echo=False, timeout=PATIENCE, encoding="utf-8"
        )
        self.terminal.expect("ready")

    def __call__(
        self, *words: str, columns: int = COLUMNS, stop_in: str | None = None, presses: int = 1
    ) -> tuple[int, str]:
        """Returns the exit code and the terminal's output, with \\r where a bar was redrawn."""
        self.terminal.setwinsize(24 if columns else 0, columns)
        self.terminal.sendline(json.dumps({"words": words, "stop_in": stop_in, "presses": presses}))
        self.terminal.expect(r"walk ended with (\d+);")
        shown = str(self.terminal.before)
        assert "Traceback" not in shown
        return int(self.terminal.match[1]), shown

    def pictures(self) -> list[Path]:
        """Lists all files except notes; a half-written or hidden picture would be included and fail to load."""
        files = [path for path in (self.root / "output").rglob("*") if path.is_file()]
        return sorted(path for path in files if path.suffix not in (".json", ".jsonl"))


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    walker = Walker(tiny_project.project(tmp_path_factory.mktemp("walks")))
    yield walker
    walker.terminal.close(force=True)


def paths_in(shown: str) -> list[Path]:
    """Lines that consist of a path once the bar before it has been wiped away."""
    lines = [line.rpartition("\r")[2] for line in shown.split("\r\n")]
    return [Path(line) for line in lines if re.fullmatch(r"/.*\.png", line)]


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


def test_two_batches_of_two_are_the_pictures_of_their_seeds(walker: Walker) -> None:
    code, shown = walker("a green square", "64", "64", "2", "2", "--steps", "2", "--seed", "11")
    together = paths_in(shown)
    assert code == 0 and len(together) == 4, shown
    for seed, path in enumerate(together, start=11):
        code, shown = walker("a green square", *SMALL, "--seed", str(seed))
        (alone,) = paths_in(shown)
        assert code == 0 and np.abs(pixels(alone).astype(int) - pixels(path)).max() <= 1


def test_both_passes_of_each_picture_are_told(walker: Walker) -> None:
    code, shown = walker("a cat", "64", "64", "2", "2", "--steps", "2", "--hires-fix", "--keep-first-pass")
    assert code == 0 and len(paths_in(shown)) == 8, shown
    sizes = [Image.open(path).size for path in paths_in(shown)]
    assert sizes.count((64, 64)) == sizes.count((128, 128)) == 4
    assert "hires 2/2: 100%" in shown


def test_a_prompt_file_tells_each_line(walker: Walker, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    good = 'a cat\n{"prompt": "a fox", "batch": 2}\n'
    file.write_text(good + '{"prompt": "a dog", "width": 7}\n', encoding="utf-8")
    code, shown = walker("--prompts", str(file), "64", "64", "2", "1", "--steps", "2")
    assert code == 2 and not paths_in(shown) and "error: prompts.txt, line 3: " in shown, shown
    file.write_text(good, encoding="utf-8")
    code, shown = walker("--prompts", str(file), "64", "64", "2", "1", "--steps", "2")
    assert code == 0 and len(paths_in(shown)) == 2 + 4, shown
    code, shown = walker("--prompts", str(file), "64", "64", "2", "1", "--steps", "2")
    assert code == 0 and shown.count("already done") == 2 and not paths_in(shown)


def test_a_comparison(walker: Walker) -> None:
    code, shown = walker("a cat", *SMALL, "--compare")
    (path,) = paths_in(shown)
    assert code == 0 and Image.open(path).width > 2 * 64 - 1
    assert "\r\npictures: " in shown


def test_json_is_one_separate_line(walker: Walker) -> None:
    code, shown = walker("a cat", "64", "64", "2", "2", "--steps", "2", "--json")
    (answer,) = [json.loads(line) for line in shown.split("\r\n") if line.startswith("{")]
    assert code == 0 and len(answer["images"]) == 4 and "sampling 2/2: 100%" in shown


@pytest.mark.parametrize("columns", [20, 40])
def test_a_narrow_terminal_keeps_the_bar_in_one_line(walker: Walker, columns: int) -> None:
    code, shown = walker("a cat", "64", "64", "2", "2", "--steps", "2", columns=columns)
    assert code == 0 and len(paths_in(shown)) == 4, shown
    bars = [bar for bar in re.split(r"[\r\n]+", shown) if bar.startswith(("sampling", "decoding"))]
    assert bars and max(len(bar) for bar in bars) <= columns


def test_a_terminal_without_a_size_counts_as_80_columns(walker: Walker) -> None:
    code, shown = walker(*SEVERAL, columns=0)
    bars = [bar for bar in re.split(r"[\r\n]+", shown) if "%|" in bar]
    assert code == 0 and {len(bar) for bar in bars} == {79} and "decoding 2/2:   0%" in shown, shown


# Where Ctrl-C is pressed -> how many pictures are finished by then, including the current one.
PHASES = {
    "modules.generation.session.load_checkpoint": 0,
    "modules.generation.text_to_image.first_pass": 0,
    "modules.generation.text_to_image.second_pass": 0,
    "modules.generation.passes.finish.to_pil": 1,
    "modules.images.save.save_png": 1,
}
SAID = {
    "modules.generation.text_to_image.first_pass": "Still loading: stopping as soon as it is done",
    "modules.generation.session.load_checkpoint": "Still loading: stopping as soon as it is done",
    "modules.generation.passes.finish.to_pil": "Stopping after this step",
}
SEVERAL = ("a cat", "64", "64", "2", "2", "--steps", "2", "--hires-fix")


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_in_each_phase_keeps_whole_pictures_only(walker: Walker, phase: str) -> None:
    before = walker.pictures()
    code, shown = walker(*SEVERAL, stop_in=phase)
    assert code == 130 and SAID.get(phase, "Stopping") in shown, shown
    made = sorted(set(walker.pictures()) - set(before))
    assert made == sorted(paths_in(shown)) and len(made) == PHASES[phase]
    assert ("kept" in shown) == bool(made)
    for path in made:
        pixels(path)


def test_ctrl_c_twice_stops_at_once_and_the_next_run_is_as_any_other(walker: Walker) -> None:
    code, shown = walker(*SEVERAL, stop_in="modules.generation.text_to_image.second_pass", presses=2)
    assert code == 130 and shown.endswith("Stopped.\r\n") and not paths_in(shown)
    assert walker("a cat", *SMALL)[0] == 0


def test_the_key_itself_while_a_bar_is_shown(tmp_path: Path, demo_checkpoint: Path) -> None:
    """Starts a separate process, because the terminal sends the signal to the whole process group."""
    words = ["pipeline.py", "a red circle", "128", "128", "9", "1", "--steps", "40", "--output-dir", str(tmp_path)]
    words += ["--checkpoint", str(demo_checkpoint), "--device", "cpu"]
    terminal = pexpect.spawn(sys.executable, words, cwd=str(ROOT), timeout=PATIENCE, encoding="utf-8")
    terminal.expect("sampling 2/9: +[1-9]")
    terminal.sendintr()
    shown = str(terminal.before) + str(terminal.after)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130 and "Traceback" not in str(terminal.before)
    assert paths_in(shown) == list(tmp_path.rglob("*.png")) and len(paths_in(shown)) == 1
