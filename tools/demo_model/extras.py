"""Trains the demo LoRAs, ControlNet and textual inversion: `python -m tools.demo_model.extras CHECKPOINT --out DIR`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from tools.demo_model.training.control_stage import train_controlnet
from tools.demo_model.training.embedding_stage import train_embedding
from tools.demo_model.training.loop.budget import Budget, Clock
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.lora_stage import train_lora
from tools.demo_model.training.sampling import load_demo
from tools.demo_model.training.teacher import Teacher
from tools.demo_model.world.styles import STYLES

# the end of each stage, as a share of the total time
ENDS = {"demo_ink": 0.19, "demo_neon": 0.38, "demo_emblem": 0.48, "demo_canny": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", choices=list(ENDS), nargs="*", default=list(ENDS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(21)
    arguments.out.mkdir(parents=True, exist_ok=True)
    clock = Clock(arguments.minutes * 60)
    teacher = Teacher(load_demo(arguments.checkpoint, torch.device(arguments.device)))
    for name in arguments.only:
        path = arguments.out / f"{name}.safetensors"
        budget, state = Budget(clock, ENDS[name]), StateFile(arguments.out / f"{name}.resume.pt")
        style = STYLES.get(name.removeprefix("demo_"))
        if style is not None:
            train_lora(teacher, teacher.pool(12_000, style), budget, state, path)
        elif name == "demo_emblem":
            train_embedding(teacher, budget, state, path)
        else:
            train_controlnet(teacher, budget, state, path)
        state.remove()


if __name__ == "__main__":
    main()
