r"""Measures whether speed costs quality: judges a demo model's pictures each way, and compares them with eager fp32.

    python -m benchmarks.bench_quality                     # needs the demo models in models/checkpoints
    python -m benchmarks.bench_quality --device cpu --divide 24
    python -m benchmarks.bench_quality --levels full --precisions off,fp8,int8 --loras demo_ink:0.5,demo_ink:1
    python -m benchmarks.bench_quality --checkpoint demo_xl --loras demo_xl_ink:1
    python -m benchmarks.bench_quality --device cpu --divide 32 --levels fused --skips 0,1,2,3 --name quality-demo-skip
    python -m benchmarks.bench_quality --device cpu --levels fused --precisions fp8,int8 --divide 1.9 --steps 8 \
        --together 16 --keep /tmp/pictures --name quality-eight-bits

`score` is the share of passed judgements (colours, shape, position, number of objects; see
tools/demo_model/judging/cases.py); `psnr` and `ssim` are medians over the pictures, against eager fp32 on the same
device with the same LoRA, and `worst` is the lowest PSNR (dB). Judgements are of pictures without LoRA only, since a
LoRA changes what is judged. Where a card has no eight-bit products, they are emulated: that tells the same about
pictures, and nothing about time.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import write_result
from modules.generation.options import LoraChoice
from modules.generation.session import Session
from modules.images.likeness import difference, structural_similarity
from modules.text.tokenizer import Tokenizer
from tools.demo_model.evaluate import tally
from tools.demo_model.judging.app import App
from tools.demo_model.judging.cases import Cases, build_cases
from tools.demo_model.world.captions import Captions

LEVELS = ("off", "graph", "fused", "full")
IDENTICAL_DB = 100.0  # reported for identical pictures

Groups = dict[str, Cases]
Pictures = dict[str, list[Image.Image]]


@dataclass(frozen=True)
class Studio:
    """Draws the cases, `together` in a batch. Pictures are kept in `kept`, and not drawn again after an interruption.

    The first picture of all is drawn alone: it finds the scales of eight bits, as a user's first picture does.
    """

    groups: Groups
    together: int
    kept: Path | None

    def draw(self, app: App, label: str, **how: Any) -> Pictures:
        cases = [case for each in self.groups.values() for case in zip(each.prompts, each.seeds, strict=True)]
        ends = [0, *range(1, len(cases), self.together), len(cases)]
        batches = [cases[begin:end] for begin, end in pairwise(ends)]
        pictures = iter([picture for batch in batches for picture in self._batch(app, label, batch, how)])
        return {name: [next(pictures) for _ in each.prompts] for name, each in self.groups.items()}

    def _batch(self, app: App, label: str, batch: Sequence[tuple[str, int]], how: dict[str, Any]) -> list[Image.Image]:
        if self.kept is None:
            return app.images(batch, **how)
        names = [sha256(repr((app.checkpoint, label, case, how)).encode()).hexdigest()[:24] for case in batch]
        files = [self.kept / f"{name}.png" for name in names]
        if not all(file.exists() for file in files):
            for file, picture in zip(files, app.images(batch, **how), strict=True):
                picture.save(file)
        return [Image.open(file) for file in files]


def row(label: str, groups: Groups, pictures: Pictures, reference: Pictures, *, judged: bool = True) -> dict[str, Any]:
    pairs = [pair for name in groups for pair in zip(pictures[name], reference[name], strict=True)]
    decibels = [min(IDENTICAL_DB, difference(*pair)[0]) for pair in pairs]
    found: dict[str, Any] = {"label": label, "pictures": len(pairs)}
    if judged:
        arrays = {name: [np.asarray(one.convert("RGB")) for one in made] for name, made in pictures.items()}
        scores = tally(groups, arrays)
        found["judgements"] = sum(number for _, number in scores.values())
        found["score"] = sum(share * number for share, number in scores.values()) / found["judgements"]
    found |= {"psnr": statistics.median(decibels), "worst": min(decibels)}
    found["ssim"] = statistics.median(structural_similarity(*pair) for pair in pairs)
    told = f"score {found['score']:.3f} of {found['judgements']}, " if judged else ""
    print(f"{label:28} {told}PSNR {found['psnr']:.1f} dB (worst {found['worst']:.1f}), SSIM {found['ssim']:.4f}")
    return found


def choices_of(text: str) -> list[LoraChoice]:
    """The LoRAs of "demo_ink:0.5,demo_ink:1"."""
    pairs = [item.partition(":") for item in text.split(",") if item]
    return [LoraChoice(name=name, strength=float(strength or 1)) for name, _, strength in pairs]


def run(arguments: argparse.Namespace) -> None:
    groups = build_cases(Captions(torch.device("cpu"), Tokenizer().encode), divide=arguments.divide)
    studio = Studio(groups, arguments.together, arguments.keep)
    how: dict[str, Any] = {"steps": arguments.steps}
    if arguments.size:
        how |= {"width": arguments.size, "height": arguments.size}
    exact = App(Session(device=arguments.device, dtype="float32"), arguments.checkpoint)
    app = App(Session(device=arguments.device, emulated=True), arguments.checkpoint)
    kind = str(app.session.dtype).removeprefix("torch.")
    ways = [
        (level, precision, int(skip))
        for level in arguments.levels.split(",")
        for precision in arguments.precisions.split(",")
        for skip in arguments.skips.split(",")
    ]
    ways = [way for way in ways if way[0] != "off" or way[1:] == ("off", 0)]
    with_loras: Sequence[tuple[LoraChoice, ...]] = [(), *((choice,) for choice in choices_of(arguments.loras))]
    rows: list[dict[str, Any]] = []
    for loras in with_loras:
        told = "".join(f" {choice.name}:{choice.strength:g}" for choice in loras)
        how["loras"], judged = loras, not loras
        reference = studio.draw(exact, "off float32", **how)
        rows.append(row(f"off float32{told}", groups, reference, reference, judged=judged))
        for level, precision, skip in ways:
            if (level, kind) == ("off", "float32"):
                continue
            label = f"{level} {kind if precision == 'off' else precision}{f', skip {skip}' if skip else ''}{told}"
            fast = {"stable_fast": level, "stable_fast_precision": precision, "stable_fast_skip": skip}
            made = studio.draw(app, label, **fast, **how)
            rows.append(row(label, groups, made, reference, judged=judged))
            write_result(arguments.name, rows, arguments=vars(arguments) | {"keep": str(arguments.keep)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--precisions", default="off", help="off, fp8, int8, fp8-weights, ...; off alone is level off")
    parser.add_argument("--skips", default="0", help="0,1,2,3: steps skipped after each full one")
    parser.add_argument("--loras", default="", help="such as demo_ink:0.5,demo_neon:1; each by itself")
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--size", type=int, help="of the pictures; default: the model's own")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--divide", type=float, default=4, help="draw only one in N pictures")
    parser.add_argument("--together", type=int, default=1, help="pictures in a batch")
    parser.add_argument("--keep", type=Path, help="folder for the pictures; what is there is not drawn again")
    parser.add_argument("--name", default="quality-demo", help="of the file of results")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
