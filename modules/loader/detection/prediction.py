"""Determines what a UNet predicts: noise (epsilon) or velocity (v)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modules.core.errors import ModelFileError, quoted

# SD2's v-prediction and epsilon models differ only in their values. ComfyUI tells them apart by this bias's spread.
_V_MARK = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_V_SPREAD = 0.09


def detect_prediction(
    unet: Mapping[str, Tensor],
    names: set[str],
    metadata: Mapping[str, str],
    facts: Mapping[str, object],
    *,
    is_sd2: bool,
) -> str:
    """Determines the prediction type by the header text, then by marker keys, then by ComfyUI's rule for SD2."""
    stated = str(facts.get("prediction_type") or metadata.get("modelspec.prediction_type") or "").lower()
    if stated in ("v", "v_prediction", "v-prediction"):
        return "v"
    if stated in ("epsilon", "eps"):
        return "epsilon"
    if stated:
        raise ModelFileError(f"This checkpoint predicts {quoted(stated)}; only epsilon and v-prediction are supported.")
    if "v_pred" in names:
        return "v"
    mark = unet.get(_V_MARK)
    if not is_sd2 or mark is None or mark.is_meta or unet["input_blocks.0.0.weight"].shape[1] != 4:
        return "epsilon"
    return "v" if mark.float().std(correction=0).item() > _V_SPREAD else "epsilon"
