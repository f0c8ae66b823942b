"""Judges the demo checkpoint, perfect renders and the autoencoder: `python -m tools.demo_model.evaluate CHECKPOINT`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import torch

from modules.text.tokenizer import Tokenizer
from tools.demo_model.judging.cases import Cases, build_cases, judge
from tools.demo_model.judging.grid import save_grid
from tools.demo_model.judging.measure import Pixels, to_pixels
from tools.demo_model.judging.written import file_to_write
from tools.demo_model.training.sampling import DemoModel, SampleOptions, load_demo, sample
from tools.demo_model.world.captions import Captions
from tools.demo_model.world.render import render

Scores = dict[str, tuple[float, int]]  # share passed, number judged
FLOORS = {
    "object colour": 0.97,
    "background colour": 0.97,
    "exactly one object": 0.95,
    "shape": 0.90,
    "position": 0.90,
    "count": 0.85,
    "sunset: warm sky": 1.0,
    "sunset: sky warmer than sea": 1.0,
    "sun on the asked side": 0.90,
}
STEADY_FLOOR = 0.92
NEGATIVE = "lowres, bad anatomy, bad hands, worst quality, low quality, jpeg artifacts, watermark, blurry, ugly"
STEADY = {
    "stock negative prompt": SampleOptions(negative=NEGATIVE),
    "clip skip 2": SampleOptions(clip_skip=2),
    "10 steps": SampleOptions(steps=10),
    "Euler": SampleOptions(sampler="euler", scheduler="normal"),
    "Euler a": SampleOptions(sampler="euler_ancestral", scheduler="normal"),
    "DDIM": SampleOptions(sampler="ddim", scheduler="ddim_uniform"),
    "Heun": SampleOptions(sampler="heun", scheduler="karras"),
    "UniPC": SampleOptions(sampler="uni_pc", scheduler="normal"),
    "CFG 7.5": SampleOptions(cfg=7.5),
}


def tally(groups: dict[str, Cases], pictures: dict[str, list[Pixels]]) -> Scores:
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for name, cases in groups.items():
        for facts, picture in zip(cases.scenes.facts, pictures[name], strict=True):
            for metric, holds in judge(name, facts, picture).items():
                verdicts[metric].append(holds)
    return {metric: (sum(values) / len(values), len(values)) for metric, values in verdicts.items()}


def steadiness(model: DemoModel, cases: Cases, count: int) -> dict[str, float]:
    """Returns the share of pictures that keep object and background colours after each change of settings."""
    out = {}
    for name, options in STEADY.items():
        pictures = to_pixels(sample(model, cases.prompts[:count], cases.seeds[:count], options))
        good = 0
        for facts, picture in zip(cases.scenes.facts[:count], pictures, strict=True):
            verdict = judge("object", facts, picture)
            good += verdict["object colour"] and verdict["background colour"]
        out[name] = good / len(pictures)
    return out


def evaluate(model: DemoModel, divide: int) -> tuple[dict[str, object], dict[str, list[Pixels]], dict[str, Cases]]:
    captions = Captions(torch.device("cpu"), Tokenizer().encode)
    groups = build_cases(captions, divide=divide)
    perfect, rebuilt, sampled = {}, {}, {}
    for name, cases in groups.items():
        images = render(cases.scenes, (128, 128))
        perfect[name] = to_pixels(images)
        rebuilt[name] = to_pixels(model.decode(model.encode(images.to(model.device))))
        sampled[name] = to_pixels(sample(model, cases.prompts, cases.seeds, SampleOptions()))
    result: dict[str, object] = {
        "perfect": tally(groups, perfect),
        "autoencoder": tally(groups, rebuilt),
        "model": tally(groups, sampled),
        "steadiness": steadiness(model, groups["object"], max(48 // divide, 4)),
        "prompts": sum(len(cases.prompts) for cases in groups.values()),
    }
    return result, sampled, groups


def table(result: dict[str, object]) -> str:
    perfect, rebuilt, sampled = (result[name] for name in ("perfect", "autoencoder", "model"))
    lines = ["| | floor | n | perfect renders | autoencoder alone | model |", "|---|---|---|---|---|---|"]
    for metric, (share, count) in sampled.items():  # type: ignore[attr-defined]
        floor = FLOORS.get(metric)
        mark = "" if floor is None or share >= floor else " (below)"
        cells = [f"{scores[metric][0]:.3f}" for scores in (perfect, rebuilt)]  # type: ignore[index]
        lines.append(f"| {metric} | {floor or ''} | {count} | {cells[0]} | {cells[1]} | {share:.3f}{mark} |")
    for name, share in result["steadiness"].items():  # type: ignore[attr-defined]
        mark = "" if share >= STEADY_FLOOR else " (below)"
        lines.append(f"| colours kept: {name} | {STEADY_FLOOR} | | | | {share:.3f}{mark} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=file_to_write, help="write the scores here")
    parser.add_argument("--grid", type=file_to_write, help="write a labelled sheet of the judged pictures here")
    parser.add_argument("--divide", type=int, default=1, help="judge only one in N prompts")
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    model = load_demo(arguments.checkpoint, torch.device(arguments.device))
    result, sampled, groups = evaluate(model, arguments.divide)
    sys.stdout.write(table(result) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    if arguments.grid:
        pictures = [picture for name in sampled for picture in sampled[name][:24]]
        labels = [prompt for name in sampled for prompt in groups[name].prompts[:24]]
        save_grid(pictures, labels, arguments.grid)


if __name__ == "__main__":
    main()
