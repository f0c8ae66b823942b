"""Learns a textual inversion: a few vectors that stand for one motif in the finished model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.text.tokenizer import Tokenizer
from tools.demo_model.training.export import BOS_TOKEN, EOS_TOKEN
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.graphed_step import GraphedStep
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.teacher import UNTRAINED_TOKEN, Teacher
from tools.demo_model.world.captions import CONTEXT
from tools.demo_model.world.scenes import COLOURS, JITTERS, SHAPES, Fact, Scenes

VECTORS = 4
TEMPLATES = ("*", "a *", "a picture of *", "a drawing of a *", "* , best quality", "one *", "an image of *", "the *")
MOTIF = {
    Fact.SHAPE: SHAPES.index("star"),
    Fact.COLOUR: COLOURS.index("yellow"),
    Fact.BACKGROUND: 1 + COLOURS.index("purple"),
    Fact.SIZE: 2,
    Fact.COUNT: 1,
}


def motif_scenes(count: int, device: torch.device) -> Scenes:
    """Draws a large yellow star on purple, the motif of the embedding."""
    facts = torch.zeros(count, len(Fact), dtype=torch.long, device=device)
    for column, value in MOTIF.items():
        facts[:, column] = value
    return Scenes(facts, torch.rand(count, JITTERS, device=device), count)


def template_ids(device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns token ids [T, 77] of the templates, and the start of the vectors in each template."""
    encode = Tokenizer().encode
    rows, starts = [], []
    for template in TEMPLATES:
        before, after = (encode(part) for part in template.split("*"))
        row = [BOS_TOKEN, *before, *[UNTRAINED_TOKEN] * VECTORS, *after]
        rows.append(row + [EOS_TOKEN] * (CONTEXT - len(row)))
        starts.append(1 + len(before))
    return torch.tensor(rows, device=device), torch.tensor(starts, device=device)


def train_embedding(teacher: Teacher, budget: Budget, state: StateFile, path: Path) -> None:
    device, text = teacher.device, teacher.model.text
    pool = teacher.pool(2048, lambda images: images, lambda count: motif_scenes(count, device))
    ids, starts = template_ids(device)
    vectors = nn.Parameter(torch.randn(VECTORS, text.config.width, device=device) * 0.3)
    trainer = Trainer([vectors], rate=2e-2, dtype=teacher.dtype, average=0.98, decay=0.0)
    places = torch.arange(CONTEXT, device=device)

    def step(latents: Tensor, chosen: Tensor, timesteps: Tensor) -> Tensor:
        offset = places[None] - starts[chosen][:, None]
        inside = (offset >= 0) & (offset < VECTORS)
        given = vectors[offset.clamp(0, VECTORS - 1)]
        embeddings = torch.where(inside[..., None], given, text.embed_tokens(ids[chosen]))
        loss = teacher.loss(latents, text(embeddings), timesteps)
        loss.backward()
        trainer.update()
        return loss.detach()

    graphed = GraphedStep(step, trainer.clear)

    def batch(_fraction: float, _step: int) -> Tensor:
        latents, _, _ = pool.draw(teacher.batch)
        chosen = torch.randint(0, len(ids), (teacher.batch,), device=device)
        return graphed(latents, chosen, teacher.timesteps())

    run_stage(path.stem, trainer, budget, state, None, batch)
    save_file({"emb_params": vectors.detach().float().cpu().contiguous()}, path)
