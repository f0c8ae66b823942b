"""Applies a LoRA file to UNet and text encoder; rejects other model families and reports unmatched keys."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.core.errors import ModelFileError, quoted
from modules.loader.detection.family_names import model_family
from modules.loader.detection.foreign import foreign_kind
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.detection.shapes import Shapes
from modules.loader.files.state_dict import read_state_dict
from modules.loader.patcher import ModelPatcher
from modules.lora.family import file_family, marked_family
from modules.lora.names import Target, canonical, name_table
from modules.lora.parse import LoraWeight, parse_lora
from modules.lora.peft_config import read_scales
from modules.lora.weights import Patch, Slice

logger = logging.getLogger(__name__)

# An inpainting UNet has five more input channels than the model a LoRA was trained on; only this layer differs.
_INPUT_LAYER = "input_blocks.0.0.weight"
_NAMED_KEYS = 3


@dataclass(frozen=True)
class LoraPatches:
    """The patches in a file, by parameter name, and the keys that match nothing in the model."""

    unet: Mapping[str, list[Patch]]
    text: Mapping[str, list[Patch]]
    unmatched: list[str]


def lora_patches(path: Path | str, unet: ModelPatcher, text: ModelPatcher, spec: ModelSpec) -> LoraPatches:
    """Reads a LoRA file for this model; logs one line if some of the file's keys match nothing."""
    path = Path(path)
    state_dict = read_state_dict(path)
    weights = _parsed(path, state_dict)
    if not weights:
        kind = foreign_kind(state_dict)
        raise ModelFileError(
            f"{path.name} is not a supported LoRA{f' but {kind}' if kind and 'LoRA' not in kind else ''}; "
            "use LoRA, LoCon, LoHa, LoKr, DoRA or whole differences."
        )
    patches = _match(path.name, weights, set(state_dict), _shapes(unet.module), _shapes(text.module), spec)
    if patches.unmatched:
        logger.warning(unmatched_line(path.name, patches.unmatched, len(state_dict)))
    return replace(
        patches,
        unet=_on_device(patches.unet, unet.patch_device),
        text=_on_device(patches.text, text.patch_device),
    )


def _on_device(patches: Mapping[str, list[Patch]], device: torch.device) -> dict[str, list[Patch]]:
    return {name: [patch.to(device) for patch in changes] for name, changes in patches.items()}


def _parsed(path: Path, state_dict: dict[str, Tensor]) -> list[LoraWeight]:
    scales = read_scales(path, state_dict)
    try:
        return parse_lora(state_dict, scales)
    except ModelFileError as error:
        raise ModelFileError(f"{path.name} cannot be used. {error}") from error


def add_lora(
    patches: LoraPatches, unet: ModelPatcher, text: ModelPatcher, *, strength: float, text_strength: float
) -> None:
    """Adds the patches to both patchers, each at its own strength; a strength of 0 adds nothing."""
    if strength:
        unet.add_patches(dict(patches.unet), strength)
    if text_strength:
        text.add_patches(dict(patches.text), text_strength)


def unmatched_line(name: str, unmatched: list[str], total: int) -> str:
    """Describes the skipped keys of a file in one readable line."""
    shown = ", ".join(quoted(key)[1:-1] for key in unmatched[:_NAMED_KEYS])
    more = f" and {len(unmatched) - _NAMED_KEYS} more" if len(unmatched) > _NAMED_KEYS else ""
    return f"{name}: {len(unmatched)} of {total} keys match nothing in this model and were left out: {shown}{more}."


def repeated_line(name: str, repeated: list[str]) -> str:
    """Names layers that a file holds under two names; only the first counts."""
    return (
        f"{name}: {len(repeated)} layers are there twice, under two names; the second one is left out, "
        f"for example {quoted(repeated[0])}."
    )


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _match(
    name: str, weights: list[LoraWeight], keys: set[str], unet: Shapes, text: Shapes, spec: ModelSpec
) -> LoraPatches:
    table = name_table(spec.unet, spec.texts, unet)
    shapes = {"unet": unet, "text": text}
    found: dict[str, dict[str, list[Patch]]] = {"unet": defaultdict(list), "text": defaultdict(list)}
    used: set[str] = set()
    misfits: list[LoraWeight] = []
    spellings: dict[tuple[str, Slice | None], str] = {}  # the layer name in the file, for each changed part of a weight
    repeated: list[str] = []
    for weight in weights:
        target = table.get(canonical(weight.module))
        parameter = target.prefix + weight.parameter if target else ""
        shape = shapes[target.part].get(parameter) if target else None
        if target is None or shape is None:
            continue
        if spellings.setdefault((parameter, target.slice), weight.module) != weight.module:
            repeated.append(weight.module)
            used.update(weight.keys)
        elif _fits(weight.patch, target, shape):
            found[target.part][parameter].append(replace(weight.patch, slice=target.slice))
            used.update(weight.keys)
        elif parameter != _INPUT_LAYER:
            misfits.append(weight)
    _refuse_other_families(name, weights, misfits, spec, matched=bool(used))
    if repeated:
        logger.warning(repeated_line(name, repeated))
    return LoraPatches(dict(found["unet"]), dict(found["text"]), sorted(keys - used))


def _fits(patch: Patch, target: Target, shape: tuple[int, ...]) -> bool:
    rows = target.slice[2] if target.slice else shape[0]
    columns = 1
    for size in shape[1:]:
        columns *= size
    # A one-dimensional magnitude has one number per output; other magnitudes have one per output or per input.
    counted = (rows, *shape[1:2]) if patch.magnitude is not None and patch.magnitude.ndim > 1 else (rows,)
    if patch.magnitude is not None and patch.magnitude.numel() not in counted:
        return False
    return patch.size == (rows, columns)


def _refuse_other_families(
    name: str, weights: list[LoraWeight], misfits: Iterable[LoraWeight], spec: ModelSpec, *, matched: bool
) -> None:
    """Raises ModelFileError if key names or layer shapes indicate another model family."""
    marked, misfit = marked_family(weights, spec), next(iter(misfits), None)
    if matched and misfit is None and marked is None:
        return
    theirs, ours = file_family(weights, spec), model_family(spec)
    if theirs is not None and theirs != ours:
        raise ModelFileError(f"{name} was made for {theirs}, this checkpoint is {ours}; choose a LoRA made for {ours}.")
    if misfit is not None:
        rows, columns = misfit.patch.size
        raise ModelFileError(
            f"{name} does not fit this checkpoint ({ours}): {quoted(misfit.module)} is made for a layer of {rows} x "
            f"{columns} weights; choose a LoRA made for this model."
        )
    raise ModelFileError(
        f"No layer that {name} changes exists in this checkpoint ({ours}), for example {quoted(weights[0].module)}; "
        "choose a LoRA made for this model."
    )
