"""Judges LoRAs, ControlNet, HiresFix and speed through the app: `python -m tools.demo_model.evaluate_extras`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from modules.core.paths import ModelFolders
from modules.generation.options import ControlChoice, HiresOptions, LoraChoice
from modules.generation.session import Session
from modules.images.convert import to_pil, to_tensor
from modules.text.tokenizer import Tokenizer
from tools.demo_model.judging.app import App
from tools.demo_model.judging.cases import Cases, build_cases, judge
from tools.demo_model.judging.measure import Mask, Pixels, background_of, overlap, read_picture, sharpness
from tools.demo_model.judging.results import Result, collect, table
from tools.demo_model.judging.written import file_to_write
from tools.demo_model.world.captions import Captions
from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import Fact, Scenes
from tools.demo_model.world.styles import STYLES, edges

CHECKPOINT, SEED = "demo.safetensors", 456_789
STRENGTHS = (0.0, 0.5, 1.0)
ALIKE = 0.8  # a shape follows its edges from this IoU on
FLOORS = {
    "LoRA demo_ink: 0, 0.5, 1 in order": 0.95,
    "LoRA demo_neon: 0, 0.5, 1 in order": 0.95,
    "LoRA off again: bit-equal": 1.0,
    "ControlNet: edge map, shape as given": 0.95,
    "ControlNet: canny of a picture, shape as given": 0.95,
    "HiresFix 2x: colours and count kept": 0.90,
}
SECONDS_LIMIT = 2.0


def style_distance(style: str, plain: Image.Image, picture: Image.Image) -> float:
    """Returns the mean difference in grey levels between a picture and the plain one redrawn by the style's rule."""
    ideal = STYLES[style](to_tensor(plain))
    return float((ideal - to_tensor(picture)).abs().mean()) * 127.5


def judge_loras(app: App, prompts: list[tuple[str, int]]) -> dict[str, Result]:
    out: dict[str, Result] = {}
    off: list[tuple[bool, float]] = []
    for style in STYLES:
        outcomes = []
        for prompt, seed in prompts:
            plain = app.image(prompt, seed)
            choices = [LoraChoice(name=f"demo_{style}", strength=strength) for strength in STRENGTHS]
            styled = [app.image(prompt, seed, loras=(choice,)) for choice in choices]
            far, middle, near = (style_distance(style, plain, picture) for picture in styled)
            outcomes.append((far > middle > near, near / far))
            again = app.image(prompt, seed)
            off.append((again.tobytes() == plain.tobytes() == styled[0].tobytes(), 0.0))
        out[f"LoRA demo_{style}: 0, 0.5, 1 in order"] = collect(outcomes)
    out["LoRA off again: bit-equal"] = collect(off)
    return out


def control_scenes(cases: Cases, captions: Captions) -> Cases:
    """Makes the position group with captions that omit place and size, so that only the edges show them."""
    silent = cases.scenes.facts.clone()
    silent[:, Fact.POSITION], silent[:, Fact.SIZE] = 0, 0
    unsaid = Scenes(silent, cases.scenes.jitter, cases.scenes.objects)
    prompts = captions.texts(unsaid, torch.Generator().manual_seed(SEED))
    return Cases(cases.scenes, prompts, cases.seeds)


def object_mask(picture: Pixels) -> Mask | None:
    """Returns the mask of the largest object, cut out half-way between its colour and the background's.

    A fixed contrast would shrink objects with soft edges, especially if the colours are similar.
    """
    found = read_picture(picture).objects
    if not found:
        return None
    values, background = picture.astype(np.float64), background_of(picture)
    colour = np.median(values[found[0].mask], axis=0)
    axis = (colour - background) / ((colour - background) ** 2).sum()
    near = ndimage.binary_dilation(found[0].mask, iterations=max(2, picture.shape[0] // 32))
    return ((values - background) @ axis > 0.5) & near


def judge_control(app: App, cases: Cases, folder: Path) -> dict[str, Result]:
    """Tests edges drawn as in training, and the app's own Canny edges of a picture of the scene."""
    names = {"none": "ControlNet: edge map, shape as given", "canny": "ControlNet: canny of a picture, shape as given"}
    outcomes: dict[str, list[tuple[bool, float]]] = {name: [] for name in names.values()}
    outcomes["ControlNet: the autoencoder alone (no floor)"] = ceiling = []
    images = render(cases.scenes, (128, 128))
    rebuilt = to_pil(app.rebuild(images))
    maps = edges(images) * 2 - 1
    for index, (prompt, seed) in enumerate(zip(cases.prompts, cases.seeds, strict=True)):
        wanted = object_mask(np.asarray(to_pil(images[index : index + 1])[0]))
        best = overlap(wanted, object_mask(np.asarray(rebuilt[index])))
        ceiling.append((best >= ALIKE, best))
        for preprocessor, given in (("none", maps), ("canny", images)):
            path = folder / f"{index}-{preprocessor}.png"
            to_pil(given[index : index + 1])[0].save(path)
            control = ControlChoice(name="demo_canny", image=path, preprocessor=preprocessor)
            score = overlap(wanted, object_mask(app.pixels(prompt, seed, controls=(control,))))
            outcomes[names[preprocessor]].append((score >= ALIKE, score))
    return {name: collect(values) for name, values in outcomes.items()}


def judge_hires(app: App, groups: dict[str, Cases], hires: HiresOptions) -> dict[str, Result]:
    kept, shapes = [], []
    for name in ("object", "count"):
        cases = groups[name]
        for facts, prompt, seed in zip(cases.scenes.facts, cases.prompts, cases.seeds, strict=True):
            small, large = app.image(prompt, seed), app.pixels(prompt, seed, hires=hires)
            plain = np.asarray(small.resize((256, 256), Image.Resampling.LANCZOS))
            verdict = judge(name, facts, large)
            gain = sharpness(large) / sharpness(plain)
            shapes.append((verdict.pop("shape"), gain))
            kept.append((all(verdict.values()), gain))
    return {"HiresFix 2x: colours and count kept": collect(kept), "HiresFix 2x: shape (no floor)": collect(shapes)}


def seconds_per_image(app: App, number: int) -> dict[str, float]:
    """Times warm pictures at the native size, with defaults for everything but the seed."""
    defaults = {"cfg": 7.0}
    app.image("a red circle", 0, **defaults)
    times = []
    for seed in range(number):
        start = time.perf_counter()
        app.image("a beautiful sunset over the ocean", seed, **defaults)
        times.append(time.perf_counter() - start)
    return {"median": round(statistics.median(times), 3), "worst": round(max(times), 3), "number": number}


def smaller(groups: dict[str, Cases], sizes: dict[str, int]) -> dict[str, Cases]:
    """Returns the first cases of each group."""
    return {
        name: Cases(
            Scenes(
                groups[name].scenes.facts[:count],
                groups[name].scenes.jitter[:count],
                min(groups[name].scenes.objects, count),
            ),
            groups[name].prompts[:count],
            groups[name].seeds[:count],
        )
        for name, count in sizes.items()
    }


def style_prompts(groups: dict[str, Cases]) -> Iterator[tuple[str, int]]:
    for name in ("object", "sunset"):
        yield from zip(groups[name].prompts, groups[name].seeds, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder with models/ (default: this project)")
    parser.add_argument("--number", type=int, default=40, help="prompts for each judgement")
    parser.add_argument("--only", nargs="*", choices=("lora", "control", "hires", "speed"), default=None)
    parser.add_argument("--hires-method", default=HiresOptions().method)
    parser.add_argument("--hires-denoise", type=float, default=0.5, help="the value of the committed results")
    parser.add_argument("--json", type=file_to_write, help="write the scores here")
    arguments = parser.parse_args()
    app = App(Session(ModelFolders(arguments.root) if arguments.root else None, device="cpu"), CHECKPOINT)
    captions, count = Captions(torch.device("cpu"), Tokenizer().encode), arguments.number
    sizes = {"object": count * 3 // 4, "sunset": count - count * 3 // 4, "position": count, "count": count // 4}
    groups = smaller(build_cases(captions, seed=SEED), sizes)
    chosen = arguments.only or ("lora", "control", "hires", "speed")
    results: dict[str, Result] = {}
    if "lora" in chosen:
        results |= judge_loras(app, list(style_prompts(groups)))
    if "control" in chosen:
        with tempfile.TemporaryDirectory() as folder:
            results |= judge_control(app, control_scenes(groups["position"], captions), Path(folder))
    if "hires" in chosen:
        hires = HiresOptions(method=arguments.hires_method, denoise=arguments.hires_denoise)
        results |= judge_hires(app, groups, hires)
    report: dict[str, object] = {name: vars(result) for name, result in results.items()}
    sys.stdout.write(table(results, FLOORS) + "\n")
    if "speed" in chosen:
        report["seconds per image"] = seconds = seconds_per_image(app, 8)
        sys.stdout.write(f"seconds per image at the native size: {seconds} (limit {SECONDS_LIMIT})\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
