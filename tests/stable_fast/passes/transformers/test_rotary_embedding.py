"""Rotary embedding as diffusers and transformers write it becomes one operation, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_ltx import apply_rotary_emb as ltx_rotary_emb
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

ROTARY = "lightdiffusion.rotary_embedding"
in_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class Diffusers(nn.Module):
    """[B, S, H, D] or [B, H, S, D], and angles in float32, as Flux, CogVideoX and OmniGen have them."""

    def __init__(self, pairs: int, sequence: int) -> None:
        super().__init__()
        self.pairs, self.sequence = pairs, sequence

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = apply_rotary_emb(x, (cos, sin), use_real_unbind_dim=self.pairs, sequence_dim=self.sequence)
        return turned.transpose(1, 2)


class Heads(nn.Module):
    """Splits rows into heads right before, so that both reshapes are one."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return apply_rotary_emb(x.unflatten(-1, (3, 8)), (cos, sin), sequence_dim=1)


class Ltx(nn.Module):
    """Turns all heads at once, with angles for each of them."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return ltx_rotary_emb(x, (cos, sin))


class Llama(nn.Module):
    def forward(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cos, sin)


class InFloat32(nn.Module):
    """Converts before it turns."""

    def forward(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        wide = q.transpose(1, 2).float(), k.transpose(1, 2).float()
        turned = apply_rotary_pos_emb(*wide, cos.float(), sin.float())
        return turned[0].to(q.dtype), turned[1].to(k.dtype)


class TurnedBack(nn.Module):
    """Turns the other way round: (b, -a)."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat((b, -a), -1) * sin


class Swapped(nn.Module):
    """Takes -a for the first half."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-a, b), -1) * sin


class OfAnother(nn.Module):
    """Turns something else than it multiplies by the cosines."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = (2 * x).chunk(2, dim=-1)
        return x * cos + torch.cat((-b, a), -1) * sin


class ReadTwice(nn.Module):
    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, dim=-1)
        turned = torch.cat((-b, a), -1)
        return x * cos + turned * sin, turned


class Overlapping(nn.Module):
    """Has halves with a channel in common."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return x * cos + torch.cat((-x[..., 3:7], x[..., :4]), -1) * sin


@in_dtypes
@pytest.mark.parametrize("pairs", [-1, -2], ids=["neighbours", "halves"])
@pytest.mark.parametrize("sequence", [1, 2])
def test_as_diffusers_writes_it(sequence: int, pairs: int, dtype: torch.dtype) -> None:
    x = random(2, 5, 7, 8).to(dtype)
    angles = random(x.shape[sequence], 8, seed=1)
    found, _ = fuse(Diffusers(pairs, sequence), [x, angles.cos(), angles.sin()], PASSES, TOLERANCES[dtype])
    assert found.pop(ROTARY) == 1 and not set(found) - {"permute", "reshape"}


@in_dtypes
def test_all_heads_side_by_side(dtype: torch.dtype) -> None:
    angles = random(2, 7, 24, seed=1)
    found, _ = fuse(Ltx(), [random(2, 7, 24).to(dtype), angles.cos(), angles.sin()], PASSES, TOLERANCES[dtype])
    assert found == {ROTARY: 1}


def test_heads_split_right_before() -> None:
    found, _ = fuse(Heads(), [random(2, 7, 24), random(7, 8, seed=1), random(7, 8, seed=2)], PASSES)
    assert found.pop(ROTARY) == 1 and not set(found) - {"reshape"}


@in_dtypes
@pytest.mark.parametrize("module", [Llama(), InFloat32()], ids=["Llama", "in float32"])
def test_as_transformers_writes_it(module: nn.Module, dtype: torch.dtype) -> None:
    heads = [random(2, 7, 4, 8).to(dtype), random(2, 7, 2, 8, seed=1).to(dtype)]
    angles = random(2, 7, 8, seed=2)
    found, _ = fuse(module, [*heads, angles.cos().to(dtype), angles.sin().to(dtype)], PASSES, TOLERANCES[dtype])
    assert found.pop(ROTARY) == 2 and not {"mul.Tensor", "add.Tensor", "neg", "cat"} & set(found)


LOOK_ALIKES = [TurnedBack(), Swapped(), OfAnother(), ReadTwice(), Overlapping()]


@pytest.mark.parametrize("module", LOOK_ALIKES, ids=lambda module: type(module).__name__)
def test_look_alikes_stay(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 7, 8), random(1, 1, 7, 8, seed=1), random(1, 1, 7, 8, seed=2)], PASSES)
    assert ROTARY not in found and found["cat"] == 1


def test_angles_of_other_shapes_stay() -> None:
    found, _ = fuse(Llama(), [random(2, 7, 4, 8), random(2, 7, 2, 8), random(2, 7, 8), random(2, 1, 8)], PASSES)
    assert ROTARY not in found
