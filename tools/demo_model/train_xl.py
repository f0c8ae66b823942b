"""Trains the XL demo: `python -m tools.demo_model.train_xl --out DIR --minutes N`. Run again to resume.

Its autoencoder is the first demo's, from models/checkpoints/demo.safetensors.
"""

from __future__ import annotations

from tools.demo_model.training.whole_run import Plan, Stage, diffusion_stage, text_stage, train_by
from tools.demo_model.training.xl.export import export_xl
from tools.demo_model.training.xl.networks import build_xl_networks
from tools.demo_model.world.views import random_view

PLAN = Plan(
    file="demo_xl.safetensors",
    minutes=8.0,
    build=build_xl_networks,
    stages={
        "text": Stage(end=0.2, train=text_stage),
        "diffusion": Stage(end=0.98, train=diffusion_stage),
    },
    export=export_xl,
    view=random_view,
)


def main() -> None:
    train_by(PLAN, __doc__)


if __name__ == "__main__":
    main()
