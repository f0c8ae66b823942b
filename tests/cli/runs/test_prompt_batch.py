"""Tests --prompts FILE: lines are requests, finished pictures stay, and bad lines are reported before any picture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pipeline
from cli.runs import prompt_batch
from modules.core.errors import Cancelled, DeviceError
from modules.tasks import prompt_record
from tests import tiny_project


class Runner:
    """Runs the command line on lines of text."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, lines: list[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Returns the exit code, the JSON output and standard error."""
        code, out, err = self.plain(lines, *arguments, "--json")
        return code, json.loads(out), err

    def plain(self, lines: list[str], *arguments: str) -> tuple[int, str, str]:
        file = self.folder / "prompts.txt"
        file.write_text("\n".join(lines), encoding="utf-8")
        size = ["64", "64", "1", "1", "--steps", "1", "--device", "cpu"]
        code = pipeline.main(["--prompts", str(file), *size, *arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def pictures(self) -> list[Path]:
        return sorted((self.folder / "output").rglob("*.png"))


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(root, capsys)


def statuses(answer: dict[str, Any]) -> list[str]:
    return [line["status"] for line in answer["lines"]]


def line(**values: Any) -> str:
    return json.dumps(values)


def test_each_line_is_a_request_with_its_own_options(run: Runner) -> None:
    lines = [
        "a cat",
        line(prompt="a dog", negative="red", width=72, seed=7, number=2, lora=["ink:0.5", "clay:-0.5:0"], cfg=1),
        line(prompt="-a hat", **{"hires-fix": True, "hires_steps": 1, "stable-fast": False}),
    ]
    code, answer, err = run(lines, "--sampler", "euler", "--quiet")
    assert code == 0 and statuses(answer) == ["done"] * 3 and err == ""
    assert [len(entry["images"]) for entry in answer["lines"]] == [1, 2, 1]
    assert [image["seed"] for image in answer["lines"][1]["images"]] == [7, 8]
    texts = [Image.open(image["path"]).info["parameters"] for image in answer["images"]]
    assert all("Sampler: Euler" in text for text in texts)
    assert "Size: 72x64" in texts[1] and "clay" in texts[1] and "Negative prompt: red" in texts[1]
    assert texts[3].startswith("-a hat") and Image.open(answer["images"][3]["path"]).size == (128, 128)


def test_standard_output_holds_the_new_paths_only(run: Runner) -> None:
    code, out, _ = run.plain(["a cat", "a dog"])
    assert code == 0 and [Path(path) for path in out.splitlines()] == run.pictures()
    assert run.plain(["a cat", "a dog"])[1] == ""


def test_a_second_run_skips_all_and_a_new_line_is_made(run: Runner) -> None:
    _, first, _ = run(["a cat", "a dog"])
    code, again, _ = run(["a dog", "a bird", "a cat"])
    assert code == 0 and statuses(again) == ["skipped", "done", "skipped"]
    assert again["lines"][0]["images"] == first["lines"][1]["images"]
    assert len(run.pictures()) == 3


@pytest.mark.parametrize(
    "changed",
    [["--seed", "4"], ["--cfg", "5"], ["--sampler", "euler"], ["--lora", "ink:0.3"], ["--negative", "x"]]
    + [["--text-encoder", "tiny.safetensors"]],
)
def test_changed_options_are_other_pictures(run: Runner, changed: list[str]) -> None:
    run(["a cat"])
    assert statuses(run(["a cat"], *changed)[1]) == ["done"]
    assert statuses(run(["a cat"])[1]) == ["skipped"]


def test_stable_fast_makes_the_same_picture_so_it_is_there(run: Runner) -> None:
    run(["a cat"])
    assert statuses(run(["a cat"], "--stable-fast")[1]) == ["skipped"]


def test_a_changed_file_is_another_picture(run: Runner, root: Path) -> None:
    photo = tiny_project.save_photo(root / "start.png")
    request = [line(prompt="a cat", img2img=str(photo), denoise=0.5)]
    assert statuses(run(request)[1]) == ["done"] and statuses(run(request)[1]) == ["skipped"]
    tiny_project.save_photo(photo)
    os.utime(photo, (1, 1))
    assert statuses(run(request)[1]) == ["done"]


def test_the_same_line_twice_gives_two_pictures(run: Runner) -> None:
    _, answer, _ = run(["a cat", "a cat"])
    seeds = [image["seed"] for image in answer["images"]]
    assert statuses(answer) == ["done", "done"] and len(set(seeds)) == 2
    assert statuses(run(["a cat", "a cat", "a cat"])[1]) == ["skipped", "skipped", "done"]


def test_a_deleted_picture_comes_back_as_it_was(run: Runner) -> None:
    _, answer, _ = run([line(prompt="a cat", number=2, batch=2, **{"hires-fix": True, "keep_first_pass": True})])
    assert len(answer["images"]) == 8
    lost = Path(answer["images"][5]["path"])
    before = Image.open(lost)
    bits, text = before.tobytes(), before.info["parameters"]
    lost.unlink()
    code, again, _ = run([line(prompt="a cat", number=2, batch=2, **{"hires-fix": True, "keep_first_pass": True})])
    assert code == 0 and statuses(again) == ["done"] and len(run.pictures()) == 8
    kept = [image["path"] for number, image in enumerate(again["images"]) if number != 5]
    assert kept == [image["path"] for number, image in enumerate(answer["images"]) if number != 5]
    assert [image["seed"] for image in again["images"]] == [image["seed"] for image in answer["images"]]
    made = Image.open(again["images"][5]["path"])
    assert made.tobytes() == bits and made.info["parameters"] == text


def test_a_stopped_run_goes_on_with_the_same_seed(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prompt_record.generate
    made = 0

    def stopping(*arguments: Any, **named: Any) -> Any:
        nonlocal made
        if made == 2:
            raise Cancelled("Cancelled; finished pictures are kept.")
        made += 1
        yield from whole(*arguments, **named)

    request = [line(prompt="a cat", number=4), "never reached"]
    with monkeypatch.context() as patched:
        patched.setattr(prompt_record, "generate", stopping)
        code, answer, _ = run(request)
    assert code == 130 and answer["exit_code"] == 130 and statuses(answer) == ["failed"]
    assert len(answer["images"]) == 2 == len(run.pictures())
    code, again, _ = run(request[:1])
    seeds = [image["seed"] for image in again["images"]]
    assert code == 0 and seeds == list(range(seeds[0], seeds[0] + 4)) and again["images"][:2] == answer["images"]


def test_a_fault_of_the_gpu_ends_the_run(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> Any:
        raise DeviceError("The GPU stopped with a fault (misaligned address).")

    monkeypatch.setattr(prompt_record, "generate", broken)
    # Earlier measurements are still on the GPU.
    monkeypatch.setattr("cli.main.tell_stable_fast", lambda *_: pytest.fail("asked the GPU"))
    code, answer, _ = run([line(prompt="a cat", stable_fast=True), "never reached"])
    assert code == 6 and answer["exit_code"] == 6 and statuses(answer) == ["failed"]


def test_tuning_counts_for_the_run_and_not_for_lines_without_stable_fast(run: Runner) -> None:
    tuned = ("--stable-fast", "--stable-fast-tune", "1")
    assert statuses(run([line(prompt="a cat", stable_fast=False)], *tuned)[1]) == ["done"]
    code, answer, _ = run([line(prompt="a dog", stable_fast_tune=3)], *tuned)
    assert code == 2 and "whole run" in answer["lines"][0]["error"]


BAD_LINES = [
    ('{"prompt": ', 2, "JSON"),
    (line(prompt="a", stepz=3), 2, '"stepz"'),
    (line(prompt="a", steps="many"), 2, "many"),
    (line(prompt="a", steps=0), 2, "steps 0"),
    (line(prompt="a", width="64"), 2, "width"),
    (line(prompt="a", width=True), 2, "width"),
    (line(prompt="a", width=65), 2, "65"),
    (line(prompt=["a"]), 2, "prompt"),
    (line(prompt="a", sampler={"name": "euler"}), 2, "sampler"),
    (line(prompt="a", sampler="eulr"), 2, "euler"),
    (line(seed=3), 2, "prompt"),
    (line(prompt="a", help=True), 2, "help"),
    (line(prompt="a", device="cpu"), 2, "device"),
    (line(prompt="a", prompts="x"), 2, "prompts"),
    (line(prompt="a", lora="gone"), 3, "gone"),
    ("a <lora:ink:much>", 2, "ink:much"),
    ("a <lora:none-such:1>", 3, "none-such"),
    ("embedding:gone", 3, "gone"),
    (line(prompt="a", img2img="gone.png"), 2, "gone.png"),
    (line(prompt="a", checkpoint="gone"), 3, "gone"),
    (line(prompt="a", **{"--help": True}), 2, "help"),
]


def test_all_bad_lines_are_reported_by_number_before_any_picture(run: Runner) -> None:
    lines = ["a cat", *(text for text, _, _ in BAD_LINES), "a dog"]
    code, answer, err = run(lines)
    assert (code, run.pictures(), answer["images"]) == (2, [], []) and "Traceback" not in err
    for number, (entry, (text, exit_code, word)) in enumerate(zip(answer["lines"], BAD_LINES, strict=True), 2):
        assert (entry["line"], entry["images"], entry["status"]) == (number, [], "failed")
        assert entry["exit_code"] == exit_code and word in entry["error"], (text, entry["error"])
        told = f"prompts.txt, line {number}: {entry['error']}" in err
        assert told == (number < 2 + prompt_batch.MOST_TOLD)
    assert answer["error"] in err and "Nothing was made" in answer["error"]


def test_an_error_in_a_json_line_names_only_its_own_place(run: Runner) -> None:
    (entry,) = run(["a", '  {"prompt": "a",, "seed": 1}'])[1]["lines"]
    assert entry["line"] == 2 and "at column 18)" in entry["error"] and "line 1" not in entry["error"]


def test_a_line_that_fails_while_it_runs_spoils_no_other(run: Runner, root: Path) -> None:
    damaged = root / "damaged.safetensors"
    damaged.write_bytes(b"no such file")
    lines = ["a cat", line(prompt="a", lora=str(damaged)), "a dog"]
    code, answer, err = run(lines)
    assert code == 3 and statuses(answer) == ["done", "failed", "done"] and "prompts.txt, line 2: " in err
    assert statuses(run(lines)[1]) == ["skipped", "failed", "skipped"]


def test_the_exit_code_is_that_of_the_first_failure(run: Runner) -> None:
    assert run(["a", line(prompt="a", lora="gone"), line(prompt="a", steps=0)])[0] == 3


def test_a_line_takes_back_what_the_run_says(run: Runner) -> None:
    nothing = {"hires_scale": None, "hires_fix": None, "lora": None, "text_encoder": None}
    lines = [line(prompt="a", hires_fix=False), line(prompt="a", **nothing)]
    _, answer, _ = run(lines, "--hires-scale", "1.5", "--lora", "ink", "--text-encoder", "tiny.safetensors")
    assert [Image.open(image["path"]).size for image in answer["images"]] == [(64, 64), (64, 64)]
    texts = [Image.open(image["path"]).info["parameters"] for image in answer["images"]]
    assert all(words in texts[0] and words not in texts[1] for words in ("ink", "Text encoder: tiny"))


def test_a_broken_record_only_forgets(run: Runner, root: Path) -> None:
    run(["a cat"])
    record = root / "output" / prompt_record.RECORD
    record.write_bytes(record.read_bytes() + b'{"request": "x", "pic\n[1]\n\xff\xfe\n{"request": 1}')
    assert statuses(run(["a cat", "a dog"])[1]) == ["skipped", "done"]
    assert statuses(run(["a cat", "a dog"])[1]) == ["skipped", "skipped"]


@pytest.mark.parametrize("option", ["--compare", "--reuse-seed"])
def test_options_for_single_requests_are_refused(run: Runner, option: str) -> None:
    code, answer, _ = run(["a cat"], option)
    assert code == 2 and option in answer["error"]


def test_a_missing_file_is_a_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.main(["--prompts", "gone.txt"]) == 2
    assert "gone.txt" in capsys.readouterr().err
