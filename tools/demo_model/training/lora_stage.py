"""Trains a style LoRA on the finished model and writes it in kohya's layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.models.attention import SpatialTransformer
from modules.models.unet import UNet
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.graphed_step import GraphedStep
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import UNET, working_dtype
from tools.demo_model.training.pools import Pool
from tools.demo_model.training.teacher import Teacher

RANK = 4
SIDES = {"input_blocks": "down", "output_blocks": "up"}


class LowRank(nn.Module):
    """A frozen linear layer or 1x1 convolution plus the product of two narrow layers; `up` starts at zero."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base = base
        inputs, outputs = base.weight.shape[1], base.weight.shape[0]
        if isinstance(base, nn.Conv2d):
            self.down: nn.Module = nn.Conv2d(inputs, rank, 1, bias=False)
            self.up: nn.Module = nn.Conv2d(rank, outputs, 1, bias=False)
        else:
            self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)  # type: ignore[arg-type]
        nn.init.zeros_(self.up.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def kohya_name(ldm_name: str) -> str:
    """Maps `input_blocks.4.1.proj_in` to kohya's `lora_unet_down_blocks_1_attentions_0_proj_in` (diffusers' count)."""
    middle = re.fullmatch(r"middle_block\.1\.(.+)", ldm_name)
    if middle:
        return "lora_unet_mid_block_attentions_0_" + middle[1].replace(".", "_")
    match = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.1\.(.+)", ldm_name)
    if match is None:
        raise ValueError(f"{ldm_name} is not part of a transformer of the UNet")
    index, per_level = int(match[2]), UNET.res_blocks + 1
    index -= match[1] == "input_blocks"  # the first input block is the entry convolution
    level, block = divmod(index, per_level)
    return f"lora_unet_{SIDES[match[1]]}_blocks_{level}_attentions_{block}_" + match[3].replace(".", "_")


def transformer_layers(unet: UNet) -> list[str]:
    """Returns the names of all linear layers and 1x1 convolutions of the UNet's transformers."""
    return [
        f"{prefix}.{name}"
        for prefix, transformer in unet.named_modules()
        if isinstance(transformer, SpatialTransformer)
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]


def insert_low_rank(network: nn.Module, names: list[str]) -> dict[str, LowRank]:
    """Wraps the named layers in place; returns the wrappers by these names."""
    inserted: dict[str, LowRank] = {}
    for name in names:
        layer = network.get_submodule(name)
        inserted[name] = LowRank(layer, RANK).to(layer.weight.device)  # type: ignore[arg-type]
        network.set_submodule(name, inserted[name])
    return inserted


def remove_low_rank(network: nn.Module, inserted: dict[str, LowRank]) -> None:
    for name, wrapped in inserted.items():
        network.set_submodule(name, wrapped.base)


def lora_weights(wrappers: dict[str, LowRank]) -> dict[str, Tensor]:
    """Returns a LoRA file's weights; `wrappers` by kohya's names."""
    weights: dict[str, Tensor] = {}
    for key, wrapped in wrappers.items():
        weights[f"{key}.lora_down.weight"] = wrapped.down.weight.detach().half().cpu().contiguous()  # type: ignore[union-attr]
        weights[f"{key}.lora_up.weight"] = wrapped.up.weight.detach().half().cpu().contiguous()  # type: ignore[union-attr]
        weights[f"{key}.alpha"] = torch.tensor(float(RANK)).half()
    return weights


def train_wrappers(
    wrappers: dict[str, LowRank],
    loss_of: Callable[..., Tensor],
    draw: Callable[[], tuple[Tensor, ...]],
    budget: Budget,
    state: StateFile,
    path: Path,
) -> None:
    """Trains the wrappers on `loss_of(*draw())` until the time is up, and writes them to `path`."""
    parameters = [p for wrapped in wrappers.values() for p in (*wrapped.down.parameters(), *wrapped.up.parameters())]
    dtype = working_dtype(parameters[0].device)
    trainer = Trainer(parameters, rate=2e-3, dtype=dtype, average=0.99, decay=0.0)

    def step(*inputs: Tensor) -> Tensor:
        loss = loss_of(*inputs)
        loss.backward()
        trainer.update()
        return loss.detach()

    graphed = GraphedStep(step, trainer.clear)
    run_stage(path.stem, trainer, budget, state, None, lambda _fraction, _step: graphed(*draw()))
    save_file(
        lora_weights(wrappers), path, metadata={"ss_network_module": "networks.lora", "ss_network_dim": str(RANK)}
    )


def train_lora(teacher: Teacher, pool: Pool, budget: Budget, state: StateFile, path: Path) -> None:
    """Trains the LoRA; `pool` contains latents of pictures already redrawn in the style."""
    unet = teacher.model.unet
    inserted = insert_low_rank(unet, transformer_layers(unet))

    def draw() -> tuple[Tensor, ...]:
        latents, facts, _ = pool.draw(teacher.batch)
        return latents, teacher.context(facts), teacher.timesteps()

    named = {kohya_name(name): wrapped for name, wrapped in inserted.items()}
    train_wrappers(named, teacher.loss, draw, budget, state, path)
    remove_low_rank(unet, inserted)
