"""A table by class name: which inputs of diffusers' networks are known when, and which of their sizes vary.

Classes are named by strings, so that diffusers need not be installed. A wrong size costs no wrong picture: the first
call at each size is compared with the network itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is known of the calls of one class.

    `moments`: input -> moment (see graph/staging.py). `axes`: input -> axis -> size that varies besides the batch; an
    input of a tuple goes by the name of the tuple. `anchor`: the input whose rows are the batch, by default the first.
    `numbers`: Python numbers that change from call to call, and are given as tensors. `grouped_by`: a number of rows
    that belong together, such as the frames of a video. `in_steps`: runs in each step.
    """

    anchor: str = ""
    moments: Mapping[str, str] = field(default_factory=dict[str, str])
    axes: Axes = field(default_factory=dict[str, Mapping[int, str]])
    numbers: tuple[str, ...] = ()
    grouped_by: str = ""
    in_steps: bool = False


class Part(NamedTuple):
    """A network of a pipeline: its name in reports, its kind, and how many latent rows one coarsest row stands for."""

    name: str
    network: nn.Module
    kind: Kind
    coarseness: int = 1


IMAGE = {2: "height", 3: "width"}
VIDEO = {3: "height", 4: "width"}
TOKENS = {1: "tokens"}
DENOISING = {
    "sample": "latent",
    "timestep": "time",
    "encoder_hidden_states": "prompt",
    "encoder_attention_mask": "prompt",
    "timestep_cond": "prompt",
    "added_cond_kwargs": "prompt",
    "added_cond_kwargs_text_embeds": "prompt",
    "added_cond_kwargs_time_ids": "prompt",
    "added_cond_kwargs_image_embeds": "prompt",
    "added_time_ids": "prompt",
}
UNET = Kind(
    anchor="sample",
    moments=DENOISING,
    axes={
        "sample": IMAGE,
        "encoder_hidden_states": TOKENS,
        "controlnet_cond": IMAGE,
        "down_block_additional_residuals": IMAGE,
        "mid_block_additional_residual": IMAGE,
        "down_intrablock_additional_residuals": IMAGE,
    },
    numbers=("conditioning_scale",),
    in_steps=True,
)
VIDEO_UNET = Kind(anchor="sample", moments=DENOISING, axes={"sample": VIDEO}, in_steps=True)
TRANSFORMER = Kind(
    moments={
        "hidden_states": "latent",
        "timestep": "time",
        "encoder_hidden_states": "prompt",
        "encoder_attention_mask": "prompt",
        "encoder_hidden_states_mask": "prompt",
        "pooled_projections": "prompt",
        "guidance": "prompt",
        "txt_ids": "prompt",
        "img_ids": "prompt",
        "added_cond_kwargs": "prompt",
    },
    axes={"txt_ids": {0: ""}, "img_ids": {0: ""}},
    in_steps=True,
)
JOINT_IMAGE = replace(TRANSFORMER, axes={"hidden_states": IMAGE, "encoder_hidden_states": TOKENS})
JOINT_PATCHES = replace(
    TRANSFORMER,
    axes={
        "hidden_states": {1: "patches"},
        "encoder_hidden_states": TOKENS,
        "img_ids": {0: "patches"},
        "txt_ids": {0: "tokens"},
    },
)
LISTS = Kind(  # the batch is a list, which has no size to name
    moments={"x": "latent", "t": "time", "cap_feats": "prompt"},
    axes={"x": {0: ""}, "t": {0: ""}, "cap_feats": {0: ""}},
    in_steps=True,
)
IMAGES = Kind(axes={"sample": IMAGE, "z": IMAGE, "x": IMAGE})
ENCODER = Kind()

DENOISERS: Mapping[str, Kind] = {
    "UNet2DConditionModel": UNET,
    "ControlNetModel": UNET,
    "ControlNetUnionModel": UNET,
    "UNetMotionModel": VIDEO_UNET,
    "UNetSpatioTemporalConditionModel": VIDEO_UNET,
}
TRANSFORMERS: Mapping[str, Kind] = {
    "QwenImageTransformer2DModel": replace(
        TRANSFORMER, axes={"encoder_hidden_states": TOKENS, "encoder_hidden_states_mask": TOKENS}
    ),
    "WanTransformer3DModel": replace(TRANSFORMER, axes={"hidden_states": VIDEO, "encoder_hidden_states": TOKENS}),
    "ZImageTransformer2DModel": LISTS,
    "FluxTransformer2DModel": JOINT_PATCHES,
    "SD3Transformer2DModel": JOINT_IMAGE,
}
AUTOENCODERS: Mapping[str, Kind] = {
    "Encoder": IMAGES,
    "Decoder": IMAGES,
    "EncoderTiny": IMAGES,
    "DecoderTiny": IMAGES,
    "TemporalDecoder": Kind(anchor="sample", axes={"sample": IMAGE}, grouped_by="num_frames"),
}


def parts_of(name: str, network: nn.Module) -> Iterator[Part]:
    """The networks to accelerate within one component of a pipeline."""
    kind, config = type(network).__name__, getattr(network, "config", None)
    levels = len(getattr(config, "block_out_channels", None) or [1])
    if kind in ("MultiControlNetModel", "MultiControlNetUnionModel"):
        for number, part in enumerate(getattr(network, "nets", ())):
            yield from parts_of(f"{name}.nets.{number}", part)
    elif "Autoencoder" in kind:
        for half in ("encoder", "decoder"):
            part = getattr(network, half, None)
            if isinstance(part, nn.Module):
                sizes = AUTOENCODERS.get(type(part).__name__, ENCODER)
                yield Part(f"{name}.{half}", part, sizes, 2 ** (levels - 1) if half == "encoder" else 1)
    elif kind in DENOISERS:
        yield Part(name, network, DENOISERS[kind], 2 ** (levels - 1))
    elif kind in TRANSFORMERS:
        # Twice the patch, since positions are cut from the middle of a table: half of the rest lies on each side.
        yield Part(name, network, TRANSFORMERS[kind], 2 * _patch_of(config))
    else:
        yield Part(name, network, TRANSFORMER if "Transformer" in kind else ENCODER)


def _patch_of(config: Any) -> int:
    """Latent rows and columns in a patch. Networks of videos give frames first."""
    size: int | Sequence[int] = getattr(config, "patch_size", None) or 1
    return size if isinstance(size, int) else size[-1]


def dims_of(part: Part, tensors: Mapping[str, Tensor], call: Mapping[str, Any]) -> dict[str, tuple[str | None, ...]]:
    """The named sizes of a call, whose flattened tensors are `tensors`. Nothing is named if the anchor is missing.

    Each size is a multiple of the anchor's: `16*batch` where each picture has 16 frames, `64*height` where a hint has
    64 rows for each coarsest row of the latent.
    """
    anchor = tensors.get(part.kind.anchor) if part.kind.anchor else next(iter(tensors.values()), None)
    if anchor is None or not anchor.dim():
        return {}
    units = {"batch": anchor.shape[0] // (call.get(part.kind.grouped_by) or 1)}
    for axis, size in part.kind.axes.get(_name_of(anchor, tensors), {}).items():
        if size in ("height", "width") and axis < anchor.dim() and anchor.shape[axis] % part.coarseness == 0:
            units[size] = anchor.shape[axis] // part.coarseness
    return {name: _named(part.kind.axes, name, tensor, units) for name, tensor in tensors.items()}


def _named(axes: Axes, name: str, tensor: Tensor, units: Mapping[str, int]) -> tuple[str | None, ...]:
    head, _, tail = name.rpartition("_")
    sizes = {0: "batch", **axes.get(head if tail.isdecimal() and head in axes else name, {})}
    return tuple(_multiple(size, sizes.get(axis, ""), units) for axis, size in enumerate(tensor.shape))


def _multiple(size: int, name: str, units: Mapping[str, int]) -> str | None:
    if name in ("tokens", "patches"):
        return name
    unit = units.get(name, 0)
    if not unit or not size or size % unit:
        return None
    return name if size == unit else f"{size // unit}*{name}"


def _name_of(tensor: Tensor, tensors: Mapping[str, Tensor]) -> str:
    return next(name for name, other in tensors.items() if other is tensor)
