"""What a UNet predicts and at which noise levels: stated in headers, marked by tensors, or seen in SD2's values."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.model_spec import ModelSpec
from tests import tiny
from tests.loader.detection.detecting import detect

V_MARK = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
EMPTY = torch.tensor([])
PLAYGROUND_MEAN, PLAYGROUND_STD = (-1.6574, 1.886, -1.383, 2.5155), (8.4927, 5.9022, 6.5498, 5.2299)
PLAYGROUND = {
    "edm_mean": torch.tensor(PLAYGROUND_MEAN).reshape(1, 4, 1, 1),
    "edm_std": torch.tensor(PLAYGROUND_STD).reshape(1, 4, 1, 1),
}
COSXL = {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)}


@pytest.fixture(scope="module")
def sdxl() -> dict[str, Tensor]:
    return tiny.checkpoint_tensors(sdxl=True)


def test_what_says_nothing_predicts_noise(sdxl: dict[str, Tensor]) -> None:
    spec = detect(sdxl, {})
    assert (spec.prediction, spec.zero_terminal_snr, spec.sigma_range) == ("epsilon", False, None)


@pytest.mark.parametrize(("spread", "expected", "size"), [(0.05, "epsilon", 512), (0.15, "v", 768)])
def test_sd2_v_prediction_by_comfyuis_rule(spread: float, expected: str, size: int) -> None:
    state = tiny.checkpoint_tensors(sd2=True)
    width = state[V_MARK].numel()
    state[V_MARK] = torch.tensor([spread, -spread] * (width // 2)).half()
    spec = detect(state, {})
    assert (spec.prediction, spec.native_size) == (expected, size)


def test_the_rule_is_for_sd2_text_to_image_only() -> None:
    state = {name: tensor for name, tensor in tiny.checkpoint_tensors().items() if "diffusion_model" not in name}
    state |= tiny.prefixed("model.diffusion_model.", tiny.unet())
    state[V_MARK] = torch.tensor([1.0, -1.0] * (state[V_MARK].numel() // 2))
    assert detect(state, {}).prediction == "epsilon"


@pytest.mark.parametrize("is_sdxl", [False, True])
def test_marker_keys(is_sdxl: bool) -> None:
    state = tiny.checkpoint_tensors(sdxl=is_sdxl) | {"v_pred": EMPTY}
    assert detect(state, {}).prediction == "v"
    assert not detect(state, {}).zero_terminal_snr
    assert detect(state | {"ztsnr": EMPTY}, {}).zero_terminal_snr


@pytest.mark.parametrize("key", ["modelspec.prediction_type", "modelspec.predict_key"])
@pytest.mark.parametrize(("stated", "expected"), [("v", "v"), ("epsilon", "epsilon")])
def test_modelspec_header(sdxl: dict[str, Tensor], key: str, stated: str, expected: str) -> None:
    assert detect(sdxl, {key: stated}).prediction == expected


def test_playground_brings_its_latents_and_noise_levels(sdxl: dict[str, Tensor]) -> None:
    spec = detect(sdxl | PLAYGROUND, {"modelspec.prediction_type": "epsilon"})
    assert (spec.prediction, spec.sigma_range) == ("edm", (0.002, 80.0))
    assert spec.vae.latent_mean == pytest.approx(PLAYGROUND_MEAN)
    assert spec.vae.latent_std == pytest.approx(PLAYGROUND_STD)
    assert spec.vae.scale_factor == 0.5


def test_cosxl_brings_its_noise_levels(sdxl: dict[str, Tensor]) -> None:
    spec = detect(sdxl | COSXL, {"modelspec.predict_key": "v"})  # as ComfyUI saves it
    assert spec.prediction == "edm_v" and spec.sigma_range == pytest.approx((0.002, 120.0))
    assert spec.vae == detect(sdxl, {}).vae


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"edm_vpred.sigma_max": torch.tensor(0.001)}, "noise levels, from 0.002 to 0.001"),
        ({"edm_vpred.sigma_max": torch.tensor(float("nan"))}, "sigma_max .* must hold 1 finite number"),
        ({"edm_vpred.sigma_max": torch.ones(2)}, r"sigma_max .* shape \[2\]"),
        ({"edm_vpred.sigma_max": torch.tensor(1 + 1j)}, "sigma_max .* must hold 1 finite number"),
        ({"edm_vpred.sigma_max": torch.tensor(1e30)}, "noise levels, from 0.002 to 1e[+]30"),
        ({"edm_mean": PLAYGROUND["edm_mean"]}, "has edm_mean but lacks edm_std"),
        ({"edm_std": PLAYGROUND["edm_std"]}, "has edm_std but lacks edm_mean"),
        (PLAYGROUND | {"edm_std": torch.zeros(4)}, "mean and standard deviation"),
        (PLAYGROUND | {"edm_mean": torch.zeros(3)}, "edm_mean .* must hold 4 finite number"),
    ],
)
def test_markers_that_make_no_sense(sdxl: dict[str, Tensor], marks: dict[str, Tensor], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        detect(sdxl | marks, {})


@pytest.mark.parametrize(
    "metadata",
    [
        {"modelspec.prediction_type": "rectified_flow"},
        {"modelspec.predict_key": "flow"},
        {"modelspec.architecture": "stable-diffusion-xl-v1-base-rectified"},
        {"lightdiffusion": json.dumps({"prediction_type": "flow"})},
    ],
)
def test_flow_models_are_refused_by_name(sdxl: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with pytest.raises(ModelFileError, match="rectified-flow checkpoint"):
        detect(sdxl, metadata)


def test_half_of_the_latents_statistics_in_our_header(sdxl: dict[str, Tensor]) -> None:
    for facts in ({"latent_mean": [0, 0, 0, 0]}, {"latent_std": [1, 1, 1, 1]}):
        with pytest.raises(ModelFileError, match="mean and standard deviation"):
            detect(sdxl, {"lightdiffusion": json.dumps(facts)})


def test_our_header_comes_first(sdxl: dict[str, Tensor]) -> None:
    def stated(**facts: object) -> ModelSpec:
        return detect(sdxl | {"v_pred": EMPTY}, {"lightdiffusion": json.dumps(facts)})

    assert stated(prediction_type="epsilon").prediction == "epsilon"
    assert stated(prediction_type="edm", sigma_min=0.01, sigma_max=50).sigma_range == (0.01, 50.0)
    with pytest.raises(ModelFileError, match="sample"):
        stated(prediction_type="sample")
