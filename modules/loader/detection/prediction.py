"""Determines what a UNet predicts, and at which noise levels it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.detection.facts import factor_of
from modules.loader.files.open_file import holds_weights

Prediction = Literal["epsilon", "v", "edm", "edm_v"]

# SD2's v-prediction and epsilon models differ only in their values. ComfyUI tells them apart by this bias's spread.
_V_MARK = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_V_SPREAD = 0.09

# Playground 2.5 stores the mean and deviation of its latents, and CosXL the ends of its noise levels.
PLAYGROUND_MARKS = ("edm_mean", "edm_std")
_COSXL_MAX, _COSXL_MIN = "edm_vpred.sigma_max", "edm_vpred.sigma_min"
_EDM_RANGE = (0.002, 80.0)
_COSXL_LOWEST = 0.002
_EDM_LIMITS = (1e-6, 1e4)  # far outside every published range; beyond them, float32 loses the picture in the noise

_SPELLINGS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v",
    "v_prediction": "v",
    "v-prediction": "v",
    "edm": "edm",
    "edm_v": "edm_v",
}
_STATED_IN = ("modelspec.prediction_type", "modelspec.predict_key")  # kohya's and ComfyUI's names


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the UNet was trained. `sigma_range`: the lowest and highest noise level of the two EDM kinds."""

    prediction: Prediction
    zero_terminal_snr: bool = False
    sigma_range: tuple[float, float] | None = None


def detect_training(
    unet: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    facts: Mapping[str, object],
    *,
    is_sd2: bool,
) -> Training:
    """Reads the header text first, then marker tensors, then the modelspec, then applies ComfyUI's rule for SD2.

    Raises ModelFileError for flow models and other kinds that we cannot sample.
    """
    _refuse_flow(metadata, facts)
    zero_snr = "ztsnr" in state or bool(facts.get("zero_terminal_snr"))
    prediction = _stated(facts.get("prediction_type"))
    if prediction is None and has_playground_marks(state):
        prediction = "edm"
    if prediction is None and _COSXL_MAX in state:
        prediction = "edm_v"
    if prediction in ("edm", "edm_v"):
        return Training(prediction=prediction, sigma_range=_sigma_range(state, facts))
    stated = next((metadata[name] for name in _STATED_IN if name in metadata), None)
    prediction = prediction or _stated(stated) or ("v" if "v_pred" in state else None)
    return Training(prediction=prediction or _by_values(unet, is_sd2=is_sd2), zero_terminal_snr=zero_snr)


def _stated(value: object) -> Prediction | None:
    text = str(value or "").lower()
    if text and text not in _SPELLINGS:
        raise ModelFileError(f"This checkpoint predicts {quoted(text)}; only epsilon, v and EDM can be sampled.")
    return _SPELLINGS.get(text)


def _refuse_flow(metadata: Mapping[str, str], facts: Mapping[str, object]) -> None:
    stated = [facts.get("prediction_type"), *map(metadata.get, (*_STATED_IN, "modelspec.architecture"))]
    if any(mark in str(value).lower() for value in stated for mark in ("flow", "rectified")):
        raise ModelFileError(
            "This is a rectified-flow checkpoint, which we cannot sample; use a version with epsilon or v-prediction."
        )


def _sigma_range(state: Mapping[str, Tensor], facts: Mapping[str, object]) -> tuple[float, float]:
    """Returns the range that the file states, or else Playground's. Raises ModelFileError if it is none."""
    low, high = factor_of(facts, "sigma_min", _EDM_RANGE[0]), factor_of(facts, "sigma_max", _EDM_RANGE[1])
    if _COSXL_MAX in state:
        [high] = numbers_in(state, _COSXL_MAX, 1)
        [low] = numbers_in(state, _COSXL_MIN, 1) if _COSXL_MIN in state else (_COSXL_LOWEST,)
    lowest, highest = _EDM_LIMITS
    if not lowest <= low < high <= highest:
        raise ModelFileError(
            f"This checkpoint's noise levels, from {low:g} to {high:g}, cannot be used: they must rise and lie between "
            f"{lowest:g} and {highest:g}; the file is damaged."
        )
    return low, high


def has_playground_marks(state: Mapping[str, Tensor]) -> bool:
    """Tells whether the checkpoint states the statistics of its latents. Raises ModelFileError for half of them."""
    found = [mark for mark in PLAYGROUND_MARKS if mark in state]
    if len(found) == 1:
        [missing] = set(PLAYGROUND_MARKS) - set(found)
        raise ModelFileError(
            f"This checkpoint has {found[0]} but lacks {missing}, and its latents cannot be read with one of them "
            "alone; the file is incomplete: download it again."
        )
    return bool(found)


def numbers_in(state: Mapping[str, Tensor], name: str, count: int) -> tuple[float, ...]:
    """Reads a marker tensor of so many numbers. Raises ModelFileError if it holds others or none."""
    tensor = state[name]
    if tensor.numel() != count or not holds_weights(tensor) or not bool(tensor.float().isfinite().all()):
        raise ModelFileError(
            f"{name} of this checkpoint has shape {list(tensor.shape)} and must hold {count} finite number(s)."
        )
    return tuple(tensor.float().flatten().tolist())


def _by_values(unet: Mapping[str, Tensor], *, is_sd2: bool) -> Prediction:
    mark = unet.get(_V_MARK)
    if not is_sd2 or mark is None or mark.is_meta or unet["input_blocks.0.0.weight"].shape[1] != 4:
        return "epsilon"
    return "v" if mark.float().std(correction=0).item() > _V_SPREAD else "epsilon"
