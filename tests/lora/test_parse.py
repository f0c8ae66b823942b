"""Key endings of every naming style, alpha, and incomplete layers."""

from __future__ import annotations

import pytest
import torch

from modules.core.errors import ModelFileError
from modules.lora.parse import parse_lora, split_key
from modules.lora.weights import LowRank
from tests.lora.builders import lora, random


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lora_unet_a_b.lora_up.weight", ("lora_unet_a_b", "up")),
        ("lora_unet_a_b.lora_mid.weight", ("lora_unet_a_b", "mid")),
        ("lycoris_a_b.lokr_w2_b", ("lycoris_a_b", "lokr_w2_b")),
        ("lycoris_a_b.lokr_w2", ("lycoris_a_b", "lokr_w2")),
        ("unet.a.b.lora_A.weight", ("unet.a.b", "down")),
        ("base_model.model.a.b.lora_B.default.weight", ("base_model.model.a.b", "up")),
        ("unet.a.b.lora_magnitude_vector", ("unet.a.b", "magnitude_vector")),
        ("unet.a.b.lora_magnitude_vector.default.weight", ("unet.a.b", "magnitude_vector")),
        ("unet.a.processor.to_q_lora.down.weight", ("unet.a.processor.to_q", "down")),
        ("text_encoder.a.q_proj.lora_linear_layer.up.weight", ("text_encoder.a.q_proj", "up")),
        ("diffusion_model.a.lora.up.weight", ("diffusion_model.a", "up")),
        ("a.lora_B.bias", None),
        ("a.oft_blocks", None),
    ],
)
def test_split_key(key: str, expected: tuple[str, str] | None) -> None:
    assert split_key(key) == expected


@pytest.mark.parametrize(("alpha", "scale"), [(2.0, 0.5), (None, 1.0), (0.0, 1.0)])
def test_alpha_over_rank(alpha: float | None, scale: float) -> None:
    (weight,) = parse_lora(lora("x", 8, 6, alpha=alpha))
    assert isinstance(weight.patch, LowRank) and weight.patch.scale == scale


def test_alpha_of_the_file_wins_over_the_configuration() -> None:
    tensors = lora("x", 8, 6, alpha=2.0) | lora("y", 8, 6, alpha=None)
    scales = {weight.module: weight.patch.scale for weight in parse_lora(tensors, {"x": 3.0, "y": 3.0})}
    assert scales == {"x": 0.5, "y": 3.0}


def test_incomplete_layers_are_left_out() -> None:
    tensors = lora("x", 8, 6) | {
        "y.lora_up.weight": random(8, 4),
        "z.hada_w1_a": random(8, 4),
        "z.alpha": torch.tensor(1.0),
    }
    assert [weight.module for weight in parse_lora(tensors)] == ["x"]


def test_weight_and_bias_of_one_layer() -> None:
    weights = parse_lora({"x.diff": random(4, 3), "x.diff_b": random(4)})
    assert [(weight.parameter, weight.keys) for weight in weights] == [("weight", ("x.diff",)), ("bias", ("x.diff_b",))]


@pytest.mark.parametrize(
    "tensors",
    [
        {"x.lora_up.weight": random(8, 4), "x.lora_down.weight": random(5, 6)},
        {
            "x.hada_w1_a": random(8, 4),
            "x.hada_w1_b": random(4, 6),
            "x.hada_w2_a": random(7, 4),
            "x.hada_w2_b": random(4, 6),
        },
        {"x.lokr_w1": random(2, 2), "x.lokr_w2_a": random(4, 3), "x.lokr_w2_b": random(2, 3)},
        {"x.lora_up.weight": torch.tensor(1.0), "x.lora_down.weight": random(5, 6)},
        {"x.diff": torch.tensor(1.0)},
    ],
)
def test_factors_that_do_not_fit_are_refused(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ModelFileError, match="use another copy"):
        parse_lora(tensors)


def test_matrices_saved_as_convolutions_make_the_same_change() -> None:
    files: list[dict[str, torch.Tensor]] = [
        {"x.lora_up.weight": random(8, 4), "x.lora_down.weight": random(4, 6)},
        {f"x.hada_w{i}_{c}": random(*((8, 4) if c == "a" else (4, 6))) for i in (1, 2) for c in "ab"},
        {"x.lokr_w1": random(2, 2), "x.lokr_w2_a": random(4, 3), "x.lokr_w2_b": random(3, 3)},
    ]
    for matrices in files:
        longer = {name: tensor[:, :, None, None] for name, tensor in matrices.items()}
        weight = torch.zeros(8, 6)
        (plain,), (other,) = parse_lora(matrices), parse_lora(longer)
        assert torch.equal(plain.patch.apply(weight, 1.0), other.patch.apply(weight, 1.0))


@pytest.mark.parametrize("slot", ["lora_up.weight", "lora_down.weight", "alpha", "dora_scale"])
@pytest.mark.parametrize("bad", [torch.zeros(0, 4), torch.zeros(2, 2, dtype=torch.int32), torch.tensor(float("nan"))])
def test_tensors_that_cannot_be_what_they_are_called(slot: str, bad: torch.Tensor) -> None:
    good = {"x.lora_up.weight": random(8, 4), "x.lora_down.weight": random(4, 6), "x.alpha": torch.tensor(4.0)}
    with pytest.raises(ModelFileError, match="use another"):
        parse_lora(good | {f"x.{slot}": bad})
