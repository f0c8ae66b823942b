"""Normalises the names in a model file: removes wrappers, puts dots between levels, and fixes the case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# Prefixes of the wrappers that trainers put around a network; the first one found counts.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "_orig_mod", "network", "net", "ema")
# Names with these prefixes already belong to a complete checkpoint.
_ROOTS = frozenset(
    ("first_stage_model", "cond_stage_model", "control_model", "conditioner")
    + ("unet", "vae", "text_encoder", "diffusion_model")
)
_WRAPPED_IN_LDM = "diffusion_model"  # "model.diffusion_model." is the UNet's regular prefix in a checkpoint
_SEPARATOR = re.compile(r"[/\\]+")
_WRAPPED_WITHIN = re.compile(r"\.(?:_orig_mod|module)(?=\.)")  # torch.compile's or DataParallel's wrapper of one part
# The few parts of names that have capitals (in PEFT, ESRGAN and BSRGAN files).
_CAPITALS = {piece.lower(): piece for piece in ("lora_A", "lora_B", "RRDB_trunk", "HRconv")}
_CAPITAL_PIECE = re.compile(rf"(?:^|(?<=[._]))(?:{'|'.join(_CAPITALS)})(?=[._]|$)")
_MAY_BE_CAPITAL = re.compile(rf"{'|'.join(_CAPITALS.values())}|RDB\d")
_MOST_WRAPPERS = 4


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames tensors to plain names; drops everything outside a wrapped network, such as an optimizer's state."""
    plain = _renamed(dict(tensors), {name: _SEPARATOR.sub(".", name) for name in tensors})
    plain = _renamed(plain, {name: _usual_case(name) for name in plain})
    plain = _renamed(plain, {name: _WRAPPED_WITHIN.sub("", name) for name in plain})
    for _ in range(_MOST_WRAPPERS):
        wrapper = _wrapper(plain)
        if wrapper is None:
            break
        plain = {name[len(wrapper) :]: tensor for name, tensor in plain.items() if name.startswith(wrapper)}
    return plain


def _renamed(tensors: dict[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Applies the new names unless any of them collide."""
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    return renamed if len(renamed) == len(tensors) else tensors


def _usual_case(name: str) -> str:
    if _MAY_BE_CAPITAL.sub("", name) != _MAY_BE_CAPITAL.sub("", name).lower():
        name = name.lower()
    return _CAPITAL_PIECE.sub(lambda match: _CAPITALS[match[0]], name)


def _wrapper(names: Iterable[str]) -> str | None:
    """Returns the prefix to remove (along with its dot), or None."""
    pieces = {tuple(name.split(".", 2)[:2]) for name in names}
    roots = {piece[0] for piece in pieces}
    if roots & _ROOTS:
        return None
    for wrapper in _WRAPPERS:
        inside = {piece[1] for piece in pieces if piece[0] == wrapper and len(piece) > 1}
        # Original ESRGAN files number the layers of their "model".
        if inside and not any(piece == _WRAPPED_IN_LDM or piece.isdigit() for piece in inside):
            return f"{wrapper}."
    return "0." if roots == {"0"} and all(len(piece) > 1 for piece in pieces) else None
