"""Each kind of patch against LyCORIS' own layers and against float64 formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.lora.parse import parse_lora
from modules.lora.weights import Difference, Kronecker, LowRank
from tests.lora.builders import random, relative_error


def layer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    made = {
        "linear": lambda: nn.Linear(24, 40),
        "square": lambda: nn.Linear(32, 32),
        "conv1": lambda: nn.Conv2d(24, 40, 1),
        "conv3": lambda: nn.Conv2d(24, 40, 3, padding=1),
    }[kind]()
    return made.requires_grad_(False)


def lycoris_layer(algorithm: str, module: nn.Module, *, tucker: bool, dora: bool, dora_on_output: bool) -> nn.Module:
    modules = pytest.importorskip("lycoris.modules")
    kinds = {"lora": modules.LoConModule, "loha": modules.LohaModule, "lokr": modules.LokrModule}
    name, *variant = algorithm.split("-")
    extra = {"decompose_both": "both" in variant, "full_matrix": "full" in variant} if name == "lokr" else {}
    made = kinds[name](
        "layer", module, 1.0, 3, 2.0, use_tucker=tucker, weight_decompose=dora, wd_on_out=dora_on_output, **extra
    )
    with torch.no_grad():
        for seed, (label, parameter) in enumerate(made.named_parameters()):
            noise = random(*parameter.shape, seed=seed)
            parameter.copy_(parameter + 0.1 * noise if "dora" in label else noise)
    return made.eval()


@pytest.mark.parametrize("dora", [None, "output", "input"])
@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("kind", ["linear", "square", "conv1", "conv3"])
@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr", "lokr-both", "lokr-full"])
def test_patch_equals_lycoris_forward(algorithm: str, kind: str, tucker: bool, dora: str | None) -> None:
    base = layer(kind)
    oracle = lycoris_layer(algorithm, base, tucker=tucker, dora=dora is not None, dora_on_output=dora == "output")
    state = {f"lora_unet_layer.{key}": value.detach() for key, value in oracle.custom_state_dict().items()}
    x = random(2, 24 if kind != "square" else 32, *((7, 5) if "conv" in kind else ()), seed=9)

    (weight,) = parse_lora(state)
    merged = weight.patch.apply(base.weight, 1.0)
    with torch.no_grad():
        oracle.org_forward = base.forward
        expected = oracle(x)
    actual = F.conv2d(x, merged, base.bias, padding=base.padding) if "conv" in kind else F.linear(x, merged, base.bias)
    assert set(weight.keys) == set(state)
    assert relative_error(merged, base.weight) > 0.01
    assert relative_error(actual, expected) < 1e-5


def test_locon_mid_in_float64() -> None:
    up, mid, down = random(10, 3, 1, 1), random(3, 3, 3, 3, seed=1), random(3, 6, 1, 1, seed=2)
    patch = LowRank(up=up, mid=mid, down=down, scale=0.5)
    weight = random(10, 6, 3, 3, seed=3)
    expected = weight.double().clone()
    for p in range(3):
        for q in range(3):
            outer = up[:, p, 0, 0].double()[:, None] * down[q, :, 0, 0].double()[None, :]
            expected += 0.7 * 0.5 * outer[:, :, None, None] * mid[p, q].double()
    assert relative_error(patch.apply(weight, 0.7), expected) < 1e-6
    assert patch.size == (10, 6 * 9)


@pytest.mark.parametrize("per_output", [True, False])
def test_dora_in_float64_at_partial_strength(per_output: bool) -> None:
    up, down, weight = random(8, 2), random(2, 6, seed=1), random(8, 6, seed=2)
    magnitude = random(8, 1, seed=3).abs() if per_output else random(1, 6, seed=3).abs()
    patch = LowRank(up=up, down=down, scale=0.5, magnitude=magnitude)
    changed = weight.double() + 0.5 * up.double() @ down.double()
    norm = changed.square().sum(1 if per_output else 0, keepdim=True).sqrt()
    full = changed * magnitude.double() / norm
    assert relative_error(patch.apply(weight, 1.0), full) < 1e-6
    assert relative_error(patch.apply(weight, 0.3), 0.7 * weight.double() + 0.3 * full) < 1e-6


def test_kronecker_blocks() -> None:
    left, right = random(2, 3), random(4, 5, seed=1)
    weight = torch.zeros(8, 15)
    merged = Kronecker(left=(left,), right=(right,), scale=1.0).apply(weight, 2.0)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(merged[4 * i : 4 * i + 4, 5 * j : 5 * j + 5], 2.0 * left[i, j] * right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_factors_are_multiplied_in_fp32(dtype: torch.dtype) -> None:
    up, down = random(8, 4).to(dtype), random(4, 8, seed=1).to(dtype)
    weight = random(8, 8, seed=2)
    merged = LowRank(up=up, down=down, scale=0.25).apply(weight, 1.0)
    assert merged.dtype == torch.float32
    assert relative_error(merged, weight.double() + 0.25 * up.double() @ down.double()) < 1e-6


def test_patches_move_as_a_whole_but_for_differences() -> None:
    meta = torch.device("meta")
    right = (random(3, 3, 3, 3), random(3, 8), random(3, 8))
    kronecker = Kronecker(left=(random(2, 2),), right=right, scale=0.5, magnitude=random(4, 1), slice=(0, 1, 2))
    moved = kronecker.to(meta)
    assert {factor.device for factor in moved.factors()} == {meta} and len(list(moved.factors())) == 5
    assert (moved.scale, moved.slice) == (0.5, (0, 1, 2)) and isinstance(moved, Kronecker)
    half = LowRank(up=random(4, 2).half(), down=random(2, 4).half()).to(meta)
    assert {factor.dtype for factor in half.factors()} == {torch.float16}
    difference = Difference(difference=random(4, 4))
    assert difference.to(meta) is difference


def test_apply_leaves_its_argument_alone() -> None:
    weight = random(4, 4)
    before = weight.clone()
    Difference(difference=random(4, 4, seed=1)).apply(weight, 1.0)
    assert torch.equal(weight, before)


def test_dora_of_a_zero_row_stays_finite() -> None:
    patch = LowRank(up=torch.zeros(3, 1), down=torch.zeros(1, 2), magnitude=torch.ones(3, 1))
    assert patch.apply(torch.zeros(3, 2), 1.0).isfinite().all()
