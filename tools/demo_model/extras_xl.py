"""Trains the XL demo's LoRA: `python -m tools.demo_model.extras_xl CHECKPOINT --out DIR`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor

from tools.demo_model.training.diffusion import NATIVE
from tools.demo_model.training.loop.budget import Budget, Clock
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.pools import fill_pool
from tools.demo_model.training.xl.lora import load_xl_networks, train_xl_lora
from tools.demo_model.world.scenes import Scenes
from tools.demo_model.world.styles import STYLES
from tools.demo_model.world.views import Size, plain_view

NAME, STYLE = "demo_xl_ink", "ink"
PICTURES, POOL_SECONDS = 12_000, 15.0


def redrawn(scenes: Scenes, size: Size) -> tuple[Tensor, Tensor]:
    """Returns plain views in the style, and their sizes."""
    pictures, sizes = plain_view(scenes, size)
    return STYLES[STYLE](pictures), sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(21)
    arguments.out.mkdir(parents=True, exist_ok=True)
    clock = Clock(arguments.minutes * 60)
    networks = load_xl_networks(arguments.checkpoint, torch.device(arguments.device))
    seconds = POOL_SECONDS if networks.device.type == "cuda" else 0.0
    pool = fill_pool(networks, NATIVE, PICTURES, seconds, redrawn)
    state = StateFile(arguments.out / f"{NAME}.resume.pt")
    train_xl_lora(networks, pool, Budget(clock, 1.0), state, arguments.out / f"{NAME}.safetensors")
    state.remove()


if __name__ == "__main__":
    main()
