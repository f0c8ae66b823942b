"""Measures whether speed costs quality: judges the demo model's pictures each way, and compares them with eager fp32.

    python -m benchmarks.bench_quality                     # needs the demo model in models/checkpoints
    python -m benchmarks.bench_quality --device cpu --divide 24
    python -m benchmarks.bench_quality --device cpu --divide 32 --levels fused --skips 1,2,3 --steps 20,15,10

`score` is the share of passed judgements (colours, shape, position, number of objects; see
tools/demo_model/judging/cases.py); `psnr` is the median over the pictures, in dB, against eager fp32 on the same
device. With `skips`, the last level is also judged with so many steps skipped after each full one, at each number of
steps, against eager fp32 with as many steps. Passes that are too short for that are left out, as the program refuses
them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import write_result
from modules.generation.checks.skipping import FEWEST_STEPS
from modules.generation.session import Session
from modules.tasks.compare import difference
from modules.text.tokenizer import Tokenizer
from tools.demo_model.evaluate import tally
from tools.demo_model.evaluate_extras import CHECKPOINT
from tools.demo_model.judging.app import App
from tools.demo_model.judging.cases import Cases, build_cases
from tools.demo_model.world.captions import Captions

LEVELS = ("off", "graph", "fused", "full")
IDENTICAL_DB = 100.0  # reported for identical pictures


Pictures = dict[str, list[Image.Image]]


def draw(session: Session, groups: dict[str, Cases], level: str, **changes: int) -> Pictures:
    app = App(session, CHECKPOINT)
    return {
        name: [app.image(*case, stable_fast=level, **changes) for case in zip(cases.prompts, cases.seeds, strict=True)]
        for name, cases in groups.items()
    }


def row(
    label: str,
    groups: dict[str, Cases],
    pictures: Pictures,
    reference: Pictures,
) -> dict[str, Any]:
    scores = tally(groups, {name: [np.asarray(one.convert("RGB")) for one in made] for name, made in pictures.items()})
    judged = sum(number for _, number in scores.values())
    pairs = [pair for name in groups for pair in zip(pictures[name], reference[name], strict=True)]
    distances = [min(IDENTICAL_DB, difference(*pair)[0]) for pair in pairs]
    psnr = statistics.median(distances)
    score = sum(share * number for share, number in scores.values()) / judged
    print(f"{label:32} score {score:.3f} of {judged}, PSNR {psnr:.1f} dB, worst {min(distances):.1f} dB", flush=True)
    return {"label": label, "pictures": len(pairs), "score": score, "psnr": psnr, "psnr_worst": min(distances)}


def run(arguments: argparse.Namespace) -> None:
    groups = build_cases(Captions(torch.device("cpu"), Tokenizer().encode), divide=arguments.divide)
    exact = draw(Session(device=arguments.device, dtype="float32"), groups, "off")
    rows = [row("off float32", groups, exact, exact)]
    session = Session(device=arguments.device)
    kind = str(session.dtype).removeprefix("torch.")
    for level in arguments.levels.split(","):
        if (level, kind) != ("off", "float32"):
            rows.append(row(f"{level} {kind}", groups, draw(session, groups, level), exact))
    for steps in numbers(arguments.steps) if arguments.skips else ():
        rows += skipped_rows(groups, arguments, steps)
    write_result("quality-demo-skip" if arguments.skips else "quality-demo", rows, arguments=vars(arguments))


def skipped_rows(groups: dict[str, Cases], arguments: argparse.Namespace, steps: int) -> Iterator[dict[str, Any]]:
    """Judges skipped steps in passes of `steps` steps.."""
    exact = draw(Session(device=arguments.device, dtype="float32"), groups, "off", steps=steps)
    yield row(f"{steps} steps, in full", groups, exact, exact)
    session, level = Session(device=arguments.device), arguments.levels.split(",")[-1]
    for skip in numbers(arguments.skips):
        if steps >= FEWEST_STEPS[skip]:
            made = draw(session, groups, level, steps=steps, stable_fast_skip=skip)
            yield row(f"{steps} steps, skip {skip}, {level}", groups, made, exact)


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--skips", default="", help="judge skipped steps, too: 1,2,3")
    parser.add_argument("--steps", default="20,15,10", help="for --skips")
    parser.add_argument("--divide", type=int, default=4, help="draw only one in N pictures")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
