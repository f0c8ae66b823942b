"""Trains the demo model from scratch: `python -m tools.demo_model.train --out DIR --minutes N`. Run again to resume."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import time
from pathlib import Path

import torch

from tools.demo_model.training.autoencoder import polish_decoder, train_autoencoder
from tools.demo_model.training.diffusion import COARSE, NATIVE, OTHERS, Size, train_diffusion
from tools.demo_model.training.export import export_checkpoint, split_file
from tools.demo_model.training.loop.budget import Budget, Clock
from tools.demo_model.training.loop.saved_state import StateFile, save_whole
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import Networks, build_networks
from tools.demo_model.training.pools import Pool, fill_pool
from tools.demo_model.training.text_stage import pretrain_text

logger = logging.getLogger("tools.demo_model.train")

# the end of each stage, as a share of the total time
ENDS = {"autoencoder": 0.25, "text": 0.36, "diffusion": 0.95, "polish": 1.0}
EXPORT_SECONDS = 75.0
POOL_SHARE = 0.05  # share of the total time for encoding the native size; every other size gets a seventh of this


class Run:
    """One training run in a folder: its finished stages and their weights."""

    def __init__(self, folder: Path, parts: Path | None, minutes: float, device: torch.device, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.parts = folder, parts
        self.clock = Clock(minutes * 60)
        self.networks: Networks = build_networks(device, seed)
        self._pools: dict[Size, Pool] = {}
        self._exported = time.monotonic()

    def stage(self, name: str) -> None:
        """Runs a stage, or loads its result if it is already finished."""
        done = self.folder / f"{name}.pt"
        if done.exists():
            self._load(done)
            return
        state = StateFile(self.folder / f"{name}.resume.pt")
        budget = Budget(self.clock, ENDS[name])
        logger.info("%s: %.0f s", name, budget.seconds_left)
        if name == "autoencoder":
            train_autoencoder(self.networks, budget, state)
        elif name == "text":
            pretrain_text(self.networks, self.pools((NATIVE,))[NATIVE], budget, state)
        elif name == "diffusion":
            train_diffusion(self.networks, self.pools((COARSE, NATIVE, *OTHERS)), budget, state, self._export_sometimes)
        else:
            polish_decoder(self.networks, budget, state)
        self._save(done)
        state.remove()

    def pools(self, sizes: tuple[Size, ...]) -> dict[Size, Pool]:
        seconds = POOL_SHARE * self.clock.seconds
        for size in sizes:
            if size not in self._pools:
                share = seconds if size == NATIVE else seconds / 7
                self._pools[size] = fill_pool(
                    self.networks, size, 200_000 if size in (COARSE, NATIVE) else 30_000, share
                )
                logger.info("pool %s: %d scenes, %.0f s", size, len(self._pools[size].facts), self.clock.elapsed)
        return self._pools

    def export(self, networks: Networks | None = None) -> None:
        path = self.folder / "demo.safetensors"
        export_checkpoint(networks or self.networks, path)
        if self.parts is not None:
            split_file(path, self.parts)
        self._exported = time.monotonic()

    def _export_sometimes(self, trainer: Trainer) -> None:
        """Exports the current averaged weights, so that an interrupted run still leaves a model."""
        if self.parts is None or time.monotonic() - self._exported < EXPORT_SECONDS:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for state and result; run again to resume")
    parser.add_argument("--minutes", type=float, default=9.0, help="wall-clock time of all stages together")
    parser.add_argument("--stage", choices=list(ENDS), help="discard the results from this stage on, then continue")
    parser.add_argument("--parts", type=Path, help="also write the checkpoint in parts of 14 MiB to this folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=20)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    names = list(ENDS)
    if arguments.stage:
        for name in names[names.index(arguments.stage) :]:
            (arguments.out / f"{name}.pt").unlink(missing_ok=True)
    run = Run(arguments.out, arguments.parts, arguments.minutes, torch.device(arguments.device), arguments.seed)
    for name in names:
        run.stage(name)
    run.export()
    logger.info("%s after %.0f s", run.folder / "demo.safetensors", run.clock.elapsed)


if __name__ == "__main__":
    main()
