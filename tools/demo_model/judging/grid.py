"""Draws a labelled sheet of pictures; run it on a checkpoint to make the sheet in docs/demo_model.md."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from tools.demo_model.judging.measure import Pixels, to_pixels
from tools.demo_model.judging.written import file_to_write
from tools.demo_model.training.sampling import SampleOptions, load_demo, sample

COLUMNS = 12
LABEL_HEIGHT = 34
SHOWCASE = (
    "a beautiful sunset over the ocean",
    "a sunset over the ocean, the sun on the left",
    "a pink sunset over the ocean with a sailboat",
    "a purple sunset over the mountains",
    "a red sunset over the desert",
    "green hills on a sunny day",
    "a sunny day over the ocean with clouds",
    "snowy mountains on a sunny day",
    "a starry night over the ocean",
    "the moon on the right, the hills at night",
    "a starry night over the mountains",
    "the desert at sunset, the sun on the right",
    "a red circle on a blue background",
    "a small green star in the top left corner on a white background",
    "a large pink heart on a black background",
    "a yellow star on a purple background",
    "an orange square on the right on a cyan background",
    "a blue triangle at the bottom on a yellow background",
    "two red hearts on a white background",
    "three yellow stars on a blue background",
    "a white circle in the bottom right corner on a black background",
    "a red circle and a blue square on a white background",
    "a purple heart",
    "a cyan triangle in the center on a red background",
)


def save_grid(pictures: list[Pixels], labels: list[str], path: Path, columns: int = COLUMNS) -> None:
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 4), rows * (height + LABEL_HEIGHT)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = index % columns * (width + 4) + 2, index // columns * (height + LABEL_HEIGHT)
        sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, y))
        text = "\n".join(textwrap.wrap(label, width // 5)[:3])
        draw.multiline_text((x, y + height + 1), text, fill="black", font=font, spacing=0)
    sheet.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=file_to_write, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--columns", type=int, default=COLUMNS)
    arguments = parser.parse_args()
    model = load_demo(arguments.checkpoint, torch.device(arguments.device))
    prompts = [prompt for prompt in SHOWCASE for _ in range(arguments.repeat)]
    seeds = [arguments.seed + index % arguments.repeat for index in range(len(prompts))]
    pictures = to_pixels(sample(model, prompts, seeds, SampleOptions(size=tuple(arguments.size))))
    save_grid(pictures, prompts, arguments.out, arguments.columns)


if __name__ == "__main__":
    main()
