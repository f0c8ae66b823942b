"""Measures whether speed costs quality: judges the demo model's pictures each way, and compares them with eager fp32.

    python -m benchmarks.bench_quality                     # needs the demo model in models/checkpoints
    python -m benchmarks.bench_quality --device cpu --divide 24

`score` is the share of passed judgements (colours, shape, position, number of objects; see
tools/demo_model/judging/cases.py); `psnr` is the median over the pictures, in dB, against eager fp32 on the same
device.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import write_result
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


def draw(session: Session, groups: dict[str, Cases], level: str) -> dict[str, list[Image.Image]]:
    app = App(session, CHECKPOINT)
    return {
        name: [app.image(*case, stable_fast=level) for case in zip(cases.prompts, cases.seeds, strict=True)]
        for name, cases in groups.items()
    }


def row(
    label: str,
    groups: dict[str, Cases],
    pictures: dict[str, list[Image.Image]],
    reference: dict[str, list[Image.Image]],
) -> dict[str, Any]:
    scores = tally(groups, {name: [np.asarray(one.convert("RGB")) for one in made] for name, made in pictures.items()})
    judged = sum(number for _, number in scores.values())
    pairs = [pair for name in groups for pair in zip(pictures[name], reference[name], strict=True)]
    psnr = statistics.median(min(IDENTICAL_DB, difference(*pair)[0]) for pair in pairs)
    score = sum(share * number for share, number in scores.values()) / judged
    print(f"{label:16} score {score:.3f} of {judged}, PSNR {psnr:.1f} dB")
    return {"label": label, "pictures": len(pairs), "score": score, "psnr": psnr}


def run(arguments: argparse.Namespace) -> None:
    groups = build_cases(Captions(torch.device("cpu"), Tokenizer().encode), divide=arguments.divide)
    exact = draw(Session(device=arguments.device, dtype="float32"), groups, "off")
    rows = [row("off float32", groups, exact, exact)]
    session = Session(device=arguments.device)
    kind = str(session.dtype).removeprefix("torch.")
    for level in arguments.levels.split(","):
        if (level, kind) != ("off", "float32"):
            rows.append(row(f"{level} {kind}", groups, draw(session, groups, level), exact))
    write_result("quality-demo", rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--divide", type=int, default=4, help="draw only one in N pictures")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
