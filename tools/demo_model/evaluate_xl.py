"""Judges the XL demo through the app: `python -m tools.demo_model.evaluate_xl [--root FOLDER] [--divide N]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from modules.core.paths import ModelFolders
from modules.generation.session import Session
from modules.text.tokenizer import Tokenizer
from tools.demo_model.evaluate import tally
from tools.demo_model.judging.app import App
from tools.demo_model.judging.cases import Cases, build_cases
from tools.demo_model.judging.grid import save_grid
from tools.demo_model.judging.measure import Pixels, read_picture, sharpness
from tools.demo_model.judging.results import Result, collect, table
from tools.demo_model.judging.written import file_to_write
from tools.demo_model.world.captions import Captions

CHECKPOINT = "demo_xl.safetensors"
CROP_MOVES, SMALL_BLURS = "crop: the object moves with it", "small original: a blurrier picture"
FLOORS = {
    "object colour": 0.97,
    "background colour": 0.97,
    "exactly one object": 0.95,
    "shape": 0.85,
    CROP_MOVES: 0.9,
    SMALL_BLURS: 0.9,
}
CROPS = ("0,16", "32,16")  # x and y of the corner: the object lies 32 pixels, half a unit, further left in the second
LEAST_MOVE = 0.25
SMALL_ORIGINAL, MOST_SHARPNESS = "16x16", 0.85  # as a share of the plain picture's sharpness


def judge_crop(app: App, cases: Cases) -> Result:
    """Compares the object's place in pictures of the same prompt and seed under both crops; the mean is its move."""
    outcomes = []
    for prompt, seed in zip(cases.prompts, cases.seeds, strict=True):
        first, second = (read_picture(app.pixels(prompt, seed, crop=crop)).objects for crop in CROPS)
        move = first[0].x - second[0].x if first and second else 0.0
        outcomes.append((move > LEAST_MOVE, move))
    return collect(outcomes)


def judge_original_size(app: App, cases: Cases, plain: list[Pixels]) -> Result:
    """Compares each plain picture with the one of a small original; the mean is the sharpness that is left."""
    outcomes = []
    for prompt, seed, picture in zip(cases.prompts, cases.seeds, plain, strict=True):
        small = app.pixels(prompt, seed, original_size=SMALL_ORIGINAL)
        left = sharpness(small) / max(sharpness(picture), 1e-6)
        outcomes.append((left < MOST_SHARPNESS, left))
    return collect(outcomes)


def evaluate(app: App, divide: int) -> tuple[dict[str, Result], dict[str, Cases], dict[str, list[Pixels]]]:
    groups = build_cases(Captions(torch.device("cpu"), Tokenizer().encode), divide=divide)
    drawn = {
        name: [app.pixels(prompt, seed) for prompt, seed in zip(cases.prompts, cases.seeds, strict=True)]
        for name, cases in groups.items()
    }
    results = {name: Result(share, number, share) for name, (share, number) in tally(groups, drawn).items()}
    results[CROP_MOVES] = judge_crop(app, groups["object"])
    results[SMALL_BLURS] = judge_original_size(app, groups["object"], drawn["object"])
    return results, groups, drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder with models/ (default: this project)")
    parser.add_argument("--divide", type=int, default=1, help="judge only one in N prompts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=file_to_write, help="write the scores here")
    parser.add_argument("--grid", type=file_to_write, help="write a labelled sheet of the judged pictures here")
    arguments = parser.parse_args()
    folders = ModelFolders(arguments.root) if arguments.root else None
    app = App(Session(folders, device=arguments.device, dtype="float32"), CHECKPOINT)
    results, groups, drawn = evaluate(app, arguments.divide)
    sys.stdout.write(table(results, FLOORS) + "\n")
    if arguments.json:
        report = {name: vars(result) for name, result in results.items()}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.grid:
        pictures = [picture for name in drawn for picture in drawn[name][:24]]
        save_grid(pictures, [prompt for name in drawn for prompt in groups[name].prompts[:24]], arguments.grid)


if __name__ == "__main__":
    main()
