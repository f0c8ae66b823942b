"""Trains a style LoRA on the finished model and writes it in kohya's layout."""

from __future__ import annotations

import re
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


def insert_low_rank(unet: UNet, rank: int = RANK) -> dict[str, LowRank]:
    """Wraps every linear layer and 1x1 convolution of the transformers in place; returns wrappers by LDM name."""
    inserted: dict[str, LowRank] = {}
    for prefix, transformer in list(unet.named_modules()):
        if isinstance(transformer, SpatialTransformer):
            for name, layer in list(transformer.named_modules()):
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    parent = transformer.get_submodule(name.rpartition(".")[0])
                    wrapped = LowRank(layer, rank).to(layer.weight.device)
                    setattr(parent, name.rpartition(".")[2], wrapped)
                    inserted[f"{prefix}.{name}"] = wrapped
    return inserted


def remove_low_rank(unet: UNet, inserted: dict[str, LowRank]) -> None:
    for name, wrapped in inserted.items():
        parent, _, last = name.rpartition(".")
        setattr(unet.get_submodule(parent), last, wrapped.base)


def lora_weights(inserted: dict[str, LowRank]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, wrapped in inserted.items():
        key = kohya_name(name)
        weights[f"{key}.lora_down.weight"] = wrapped.down.weight.detach().half().cpu().contiguous()  # type: ignore[union-attr]
        weights[f"{key}.lora_up.weight"] = wrapped.up.weight.detach().half().cpu().contiguous()  # type: ignore[union-attr]
        weights[f"{key}.alpha"] = torch.tensor(float(RANK)).half()
    return weights


def train_lora(teacher: Teacher, pool: Pool, budget: Budget, state: StateFile, path: Path) -> None:
    """Trains the LoRA; `pool` contains latents of pictures already redrawn in the style."""
    inserted = insert_low_rank(teacher.model.unet)
    parameters = [p for wrapped in inserted.values() for p in (*wrapped.down.parameters(), *wrapped.up.parameters())]
    trainer = Trainer(parameters, rate=2e-3, dtype=working_dtype(teacher.device), average=0.99, decay=0.0)

    def step(latents: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
        loss = teacher.loss(latents, context, timesteps)
        loss.backward()
        trainer.update()
        return loss.detach()

    graphed = GraphedStep(step, trainer.clear)

    def batch(_fraction: float, _step: int) -> Tensor:
        latents, facts = pool.draw(teacher.batch)
        return graphed(latents, teacher.context(facts), teacher.timesteps())

    run_stage(path.stem, trainer, budget, state, None, batch)
    save_file(
        lora_weights(inserted), path, metadata={"ss_network_module": "networks.lora", "ss_network_dim": str(RANK)}
    )
    remove_low_rank(teacher.model.unet, inserted)
