"""Runs all stages of a demo model's plan in a folder; started again, it goes on where it was."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.demo_model.training.diffusion import COARSE, NATIVE, OTHERS, Size, train_diffusion
from tools.demo_model.training.export import split_file
from tools.demo_model.training.loop.budget import Budget, Clock
from tools.demo_model.training.loop.saved_state import StateFile, save_whole
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import Networks
from tools.demo_model.training.pools import Pool, View, fill_pool
from tools.demo_model.training.text_stage import pretrain_text

logger = logging.getLogger("tools.demo_model.train")

EXPORT_SECONDS = 60.0
POOL_SHARE = 0.05  # share of the total time for encoding the native size; every other size gets a seventh of this


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a plan; `end` is when it ends, as a share of the total time."""

    end: float
    train: Callable[[Run, Budget, StateFile], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the training of one demo model consists of; `view` takes its pictures."""

    file: str
    minutes: float
    build: Callable[[torch.device, int], Networks]
    stages: Mapping[str, Stage]
    export: Callable[[Networks, Path], None]
    view: View


class Run:
    """One training run in a folder: its finished stages and their weights."""

    def __init__(self, plan: Plan, arguments: argparse.Namespace) -> None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.plan, self.folder, self.parts = plan, arguments.out, arguments.parts
        self.clock = Clock(arguments.minutes * 60)
        self.networks = plan.build(torch.device(arguments.device), arguments.seed)
        self._pools: dict[Size, Pool] = {}
        self._exported = time.monotonic()

    def stage(self, name: str) -> None:
        """Runs a stage, or loads its result if it is already finished."""
        done = self.folder / f"{name}.pt"
        if done.exists():
            self._load(done)
            return
        stage, state = self.plan.stages[name], StateFile(self.folder / f"{name}.resume.pt")
        budget = Budget(self.clock, stage.end)
        logger.info("%s: %.0f s", name, budget.seconds_left)
        stage.train(self, budget, state)
        self._save(done)
        state.remove()

    def pools(self, *sizes: Size) -> dict[Size, Pool]:
        seconds = POOL_SHARE * self.clock.seconds
        for size in sizes:
            if size not in self._pools:
                count = 200_000 if size in (COARSE, NATIVE) else 30_000
                share = seconds if size == NATIVE else seconds / 7
                self._pools[size] = fill_pool(self.networks, size, count, share, self.plan.view)
                logger.info("pool %s: %d scenes, %.0f s", size, len(self._pools[size].facts), self.clock.elapsed)
        return self._pools

    def export(self, networks: Networks | None = None) -> Path:
        path = self.folder / self.plan.file
        self.plan.export(networks or self.networks, path)
        if self.parts is not None:
            split_file(path, self.parts)
        self._exported = time.monotonic()
        return path

    def export_sometimes(self, trainer: Trainer) -> None:
        """Exports the current averaged weights, so that an interrupted run still leaves a model."""
        if time.monotonic() - self._exported < EXPORT_SECONDS:
            return
        unet, text = copy.deepcopy(self.networks.unet), copy.deepcopy(self.networks.text)
        for parameter, average in zip([*unet.parameters(), *text.parameters()], trainer.average, strict=True):
            parameter.grad = None
            parameter.data = average
        self.export(dataclasses.replace(self.networks, unet=unet, text=text))

    def _save(self, path: Path) -> None:
        networks = self.networks
        weights = {name: getattr(networks, name).state_dict() for name in ("vae", "text", "unet")}
        save_whole({**weights, "elapsed": self.clock.elapsed}, path)

    def _load(self, path: Path) -> None:
        saved = torch.load(path, map_location=self.networks.device, weights_only=True)
        for name in ("vae", "text", "unet"):
            getattr(self.networks, name).load_state_dict(saved[name])
        self.clock.resume(saved["elapsed"])


def text_stage(run: Run, budget: Budget, state: StateFile) -> None:
    pretrain_text(run.networks, run.pools(NATIVE)[NATIVE], budget, state)


def diffusion_stage(run: Run, budget: Budget, state: StateFile) -> None:
    train_diffusion(run.networks, run.pools(COARSE, NATIVE, *OTHERS), budget, state, run.export_sometimes)


def train_by(plan: Plan, description: str | None) -> None:
    """Reads the command line and trains all stages of the plan, then writes the checkpoint."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for state and result; run again to resume")
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="wall-clock time of all stages together")
    parser.add_argument("--stage", choices=list(plan.stages), help="discard the results from this stage on, then go on")
    parser.add_argument("--parts", type=Path, help="also write the checkpoint in parts of 14 MiB to this folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=20)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    names = list(plan.stages)
    if arguments.stage:
        for name in names[names.index(arguments.stage) :]:
            (arguments.out / f"{name}.pt").unlink(missing_ok=True)
    run = Run(plan, arguments)
    for name in names:
        run.stage(name)
    logger.info("%s after %.0f s", run.export(), run.clock.elapsed)
