"""Trains the edge ControlNet on the finished model and writes it in cldm's layout, its matrices in 8 bits."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.models.controlnet import ControlNet
from tools.demo_model.training.eight_bits import in_eight_bits
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.graphed_step import GraphedStep
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import NATIVE_SIZE, SCALE, UNET, working_dtype
from tools.demo_model.training.teacher import Teacher
from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import SHAPES, Fact, sample_scenes
from tools.demo_model.world.styles import edges


def build_controlnet(teacher: Teacher) -> ControlNet:
    """Copies the UNet's encoder half, with outputs that start at zero."""
    network = ControlNet(UNET).to(teacher.device)
    own = network.state_dict()
    copied = {key: value.float() for key, value in teacher.model.unet.state_dict().items() if key in own}
    network.load_state_dict({**own, **copied})
    silent = [network.input_hint_block[-1], network.middle_block_out[0], *(block[0] for block in network.zero_convs)]  # type: ignore[index]
    for convolution in silent:
        nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def edge_pool(teacher: Teacher, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Makes latents, facts and edge maps ([N, 1, 128, 128], as bytes); a third of the maps has thicker edges."""
    latents, facts, maps = [], [], []
    for index in range(max(count // teacher.batch, 1)):
        scenes = sample_scenes(teacher.batch, teacher.device, landscape_share=0.15)
        images = render(scenes, (NATIVE_SIZE, NATIVE_SIZE))
        hint = edges(images)[:, :1]
        hint = F.max_pool2d(hint, 3, 1, 1) if index % 3 == 2 else hint
        latents.append((teacher.model.vae.encode(images) * SCALE).half())
        facts.append(scenes.facts)
        maps.append(hint.to(torch.uint8))
    return torch.cat(latents), torch.cat(facts), torch.cat(maps)


def misleading(facts: Tensor, share: float = 0.3) -> Tensor:
    """Changes shape, place and size in a share of the captions, so that the edges win such conflicts."""
    wrong = torch.rand(len(facts), device=facts.device) < share
    facts = facts.clone()
    shape = (torch.rand(len(facts), device=facts.device) * len(SHAPES)).long()
    facts[:, Fact.SHAPE] = torch.where(wrong, shape, facts[:, Fact.SHAPE])
    for column in (Fact.POSITION, Fact.SIZE):
        facts[:, column] = torch.where(wrong, 0, facts[:, column])
    return facts


def train_controlnet(teacher: Teacher, budget: Budget, state: StateFile, path: Path, scenes: int = 24_000) -> None:
    network = build_controlnet(teacher)
    latents, facts, maps = edge_pool(teacher, scenes if teacher.device.type == "cuda" else 16)
    dtype = working_dtype(teacher.device)
    trainer = Trainer(list(network.parameters()), rate=6e-4, dtype=dtype, average=0.995)

    def step(x0: Tensor, hint: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
        def control(noisy: Tensor, when: Tensor) -> tuple[Tensor, ...]:
            return network(noisy, hint.to(dtype).expand(-1, 3, -1, -1), when, context)

        loss = teacher.loss(x0, context, timesteps, control)
        loss.backward()
        trainer.update()
        return loss.detach()

    graphed = GraphedStep(step, trainer.clear)

    def batch(_fraction: float, _step: int) -> Tensor:
        chosen = torch.randint(0, len(latents), (teacher.batch,), device=teacher.device)
        context = teacher.context(misleading(facts[chosen]), drop=0.3)
        return graphed(latents[chosen].float(), maps[chosen].float(), context, teacher.timesteps())

    run_stage(path.stem, trainer, budget, state, None, batch)
    weights = {
        f"control_model.{key}": value.detach().half().cpu().contiguous() for key, value in network.state_dict().items()
    }
    save_file(in_eight_bits(weights, lambda _name: True), path)
