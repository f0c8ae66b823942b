"""Trains the demo model from scratch: `python -m tools.demo_model.train --out DIR --minutes N`. Run again to resume."""

from __future__ import annotations

from tools.demo_model.training.autoencoder import polish_decoder, train_autoencoder
from tools.demo_model.training.export import export_checkpoint
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.networks import build_networks
from tools.demo_model.training.whole_run import Plan, Run, Stage, diffusion_stage, text_stage, train_by
from tools.demo_model.world.views import plain_view


def _autoencoder(run: Run, budget: Budget, state: StateFile) -> None:
    train_autoencoder(run.networks, budget, state)


def _polish(run: Run, budget: Budget, state: StateFile) -> None:
    polish_decoder(run.networks, budget, state)


PLAN = Plan(
    file="demo.safetensors",
    minutes=9.0,
    build=build_networks,
    stages={
        "autoencoder": Stage(end=0.25, train=_autoencoder),
        "text": Stage(end=0.36, train=text_stage),
        "diffusion": Stage(end=0.95, train=diffusion_stage),
        "polish": Stage(end=1.0, train=_polish),
    },
    export=export_checkpoint,
    view=plain_view,
)


def main() -> None:
    train_by(PLAN, __doc__)


if __name__ == "__main__":
    main()
