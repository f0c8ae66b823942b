"""Files that the documentation's examples need but a fresh clone lacks, and the only changes made to the examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

# On a CPU, the sizes of real checkpoints take minutes, and a file of prompts asks for many pictures. Only sizes change,
# and the aspect ratio stays.
SIZES = {" 1024 768 ": " 96 72 ", " 512 768 ": " 64 96 ", "prompts.txt 128 128 ": "prompts.txt 64 64 "}
# The snippet itself explains what to leave out on a CPU. A UNet with two levels and few channels is enough for it.
WITHOUT_GPU = {
    ".half()": "",
    ".cuda()": "",
    "cross_attention_dim=768": (
        "cross_attention_dim=768, block_out_channels=(32, 64), layers_per_block=1,"
        ' down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),'
        ' up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")'
    ),
}
PARAMETERS = (
    "a red circle on a blue background\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 128x128"
)


def replaced(text: str, table: dict[str, str]) -> str:
    for written, instead in table.items():
        text = text.replace(written, instead)
    return text


def add_files(clone: Path) -> None:
    """Adds the LoRA `style`, a picture with a mask, a folder with it, and a picture that was made days ago."""
    loras = clone / "models" / "loras"
    shutil.copy(loras / "demo_ink.safetensors", loras / "style.safetensors")
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(clone / "photo.png")
    (clone / "photos").mkdir()
    shutil.copy(clone / "photo.png", clone / "photos")
    mask = Image.new("L", (96, 64))
    mask.paste(255, (48, 0, 96, 64))
    mask.save(clone / "mask.png")
    earlier = clone / "output" / "2026-11-23" / "00001-7.png"
    earlier.parent.mkdir(parents=True)
    text = PngInfo()
    text.add_text("parameters", PARAMETERS)
    Image.new("RGB", (128, 128)).save(earlier, pnginfo=text)
