"""Runs stage 2: the text encoder learns what captions mean for pictures, before any denoising."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.models.attention import attention
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.graphed_step import GraphedStep
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import Networks, batch_size, working_dtype
from tools.demo_model.training.pools import Pool
from tools.demo_model.world.captions import CONTEXT

CELLS, CHANNELS = 256, 4


class LatentHeads(nn.Module):
    """Predicts the 16x16 latent twice: from the summary and, like the UNet, by attention to all states."""

    def __init__(self, width: int, summary: int) -> None:
        super().__init__()
        self.heads = width // 32
        self.whole = nn.Sequential(nn.Linear(summary, 768), nn.GELU(), nn.Linear(768, CELLS * CHANNELS))
        self.queries = nn.Parameter(torch.randn(1, CELLS, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.cell = nn.Sequential(nn.Linear(2 * width, 512), nn.GELU(), nn.Linear(512, CHANNELS))

    def forward(self, states: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.queries.expand(len(states), -1, -1).contiguous()
        read = attention(queries, self.key(states), self.value(states), self.heads)
        cells = self.cell(torch.cat([read, queries], dim=2))
        return self.whole(summary), cells.transpose(1, 2).flatten(1)


def pretrain_text(networks: Networks, pool: Pool, budget: Budget, state: StateFile) -> None:
    device = networks.device
    saved = state.load(device)
    example = torch.zeros(1, CONTEXT, dtype=torch.long, device=device)
    heads = LatentHeads(*(part.shape[-1] for part in networks.read(example))).to(device)
    trainer = Trainer(
        [*networks.text.parameters(), *heads.parameters()], rate=1.5e-3, dtype=working_dtype(device), average=0.99
    )

    def step(latents: Tensor, ids: Tensor) -> Tensor:
        whole, cells = heads(*networks.read(ids))
        target = latents.flatten(1)
        loss = F.mse_loss(whole.float(), target)
        (loss + F.mse_loss(cells.float(), target)).backward()
        trainer.update()
        return loss.detach()

    graphed = GraphedStep(step, trainer.clear)
    size = batch_size(device, 1024)

    def batch(_fraction: float, _step: int) -> Tensor:
        latents, facts, _ = pool.draw(size)
        ids = networks.captions.tokens(facts)
        assert ids.shape[1] == CONTEXT
        return graphed(latents, ids)

    run_stage("text", trainer, budget, state, saved, batch)
