"""Reads separate text encoders from files of either layout, checkpoints or diffusers folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from modules.core.errors import ModelFileError, OptionsError, quoted
from modules.loader.detection.foreign import foreign_kind
from modules.loader.detection.model_spec import TEXT_TITLES
from modules.loader.files.open_file import Weights, naming
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.diffusers import text_encoder_metadata, weight_files
from modules.loader.layouts.key_maps import (
    CLIP_PREFIX,
    DIFFUSERS_PARTS,
    OPENCLIP_PREFIX,
    REFINER_CLIP_G_PREFIX,
    SDXL_CLIP_G_PREFIX,
    SDXL_CLIP_L_PREFIX,
    TEXT_PREFIXES,
)
from modules.loader.layouts.parts import strip_prefix
from modules.models.configs import SDXL_CLIP_G, SDXL_CLIP_L

# First parts of names in a Hugging Face CLIP (many programs save it without the outer level) and in an OpenCLIP.
_HUGGING_FACE = ("text_model.", "embeddings.", "encoder.layers.", "final_layer_norm.", "text_projection.")
_OPENCLIP = ("transformer.resblocks.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
_FOLDERS = ("text_encoder", "text_encoder_2")
# The prefixes that each of SDXL's encoders can have in a checkpoint.
_SDXL_PREFIXES = {
    "clip_l": (SDXL_CLIP_L_PREFIX, DIFFUSERS_PARTS["text"]),
    "clip_g": (SDXL_CLIP_G_PREFIX, REFINER_CLIP_G_PREFIX, DIFFUSERS_PARTS["text_2"]),
}


@dataclass(frozen=True)
class TextFile:
    """One text encoder of a file, with Hugging Face's or OpenCLIP's names and no prefix."""

    path: Path
    weights: Weights

    @property
    def is_openclip(self) -> bool:
        return "positional_embedding" in self.weights.tensors

    @property
    def sdxl_name(self) -> str:
        """Which of SDXL's encoders this is: told by its width or, at another width, by its projection."""
        weights = self.weights.tensors.items()
        tables = (tensor for name, tensor in weights if name.endswith("token_embedding.weight") and tensor.ndim)
        width = next((table.shape[-1] for table in tables), None)
        if width in (SDXL_CLIP_L.width, SDXL_CLIP_G.width):
            return "clip_l" if width == SDXL_CLIP_L.width else "clip_g"
        return "clip_g" if self.is_openclip or self.projects else "clip_l"

    @property
    def projects(self) -> bool:
        """Tells whether the file holds the projection that gives the pooled vector."""
        return any(name.startswith("text_projection") for name in self.weights.tensors)


def open_text_encoders(paths: Iterable[Path]) -> list[TextFile]:
    """Opens the text encoders of these files and folders, each of which may hold two.

    Raises ModelFileError for a file without a text encoder of SD1, SD2 or SDXL.
    """
    return [TextFile(path, weights) for path in paths for weights in _encoders_at(path)]


def _encoders_at(path: Path) -> list[Weights]:
    if not path.is_dir():
        opened = [open_weights(path)]
    else:
        folders = [path / name for name in _FOLDERS if (path / name).is_dir()] or [path]
        opened = [
            replace(open_weights(weight_files(folder)[0]), metadata=text_encoder_metadata(folder)) for folder in folders
        ]
    with naming(path):
        return [replace(weights, tensors=state) for weights in opened for state in _states(weights.tensors)]


def _states(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Returns the weights of each text encoder among these tensors, without prefixes."""
    inside = [state for prefix in TEXT_PREFIXES if (state := strip_prefix(tensors, prefix))]
    if inside:
        return inside
    # ComfyUI saves a CLIP with one more level in the names than Hugging Face, and an OpenCLIP with another one.
    names = {name: name.removeprefix("transformer.") if "text_model." in name else name for name in tensors}
    for roots in (_HUGGING_FACE, _OPENCLIP):
        if any(name.endswith("token_embedding.weight") and name.startswith(roots) for name in names.values()):
            return [{names[name]: tensor for name, tensor in tensors.items() if names[name].startswith(roots)}]
    raise ModelFileError(
        f"This file is {foreign_kind(tensors) or 'of an unknown kind'} and cannot be used as the text encoder of "
        "SD1, SD2 or SDXL; choose a CLIP-L, OpenCLIP-H or CLIP-G file, or a checkpoint."
    )


def choose_encoders(files: Sequence[TextFile], checkpoint: Iterable[str]) -> dict[str, TextFile]:
    """Returns which encoder each file replaces, by the encoder's name; `checkpoint` holds the checkpoint's names.

    Raises OptionsError if two files are for the same encoder, and ModelFileError for a CLIP-G that SDXL cannot use.
    """
    if not files:
        return {}
    if _is_sdxl(checkpoint):
        return _by_sdxl_name(files)
    if len({file.path for file in files}) > 1 or len({file.sdxl_name for file in files}) < len(files):
        raise OptionsError("This checkpoint has one text encoder: give --text-encoder once.")
    # SD1's is CLIP-L and SD2's is CLIP-H. Of SDXL's two, only CLIP-L has another family's shape.
    return dict.fromkeys(("clip_l", "clip_h"), min(files, key=lambda file: file.is_openclip))


def _is_sdxl(names: Iterable[str]) -> bool:
    """Recognises SDXL's UNet by the layers that read a vector, in any layout."""
    return any("label_emb" in name or "add_embedding." in name for name in names)


def _by_sdxl_name(files: Sequence[TextFile]) -> dict[str, TextFile]:
    chosen: dict[str, TextFile] = {}
    for file in files:
        other = chosen.setdefault(file.sdxl_name, file)
        if other is not file:
            raise OptionsError(
                f"Both {quoted(other.path.name)} and {quoted(file.path.name)} hold {TEXT_TITLES[file.sdxl_name]}: "
                "SDXL needs one CLIP-L and one CLIP-G."
            )
        if file.sdxl_name == "clip_g" and not file.projects:
            raise ModelFileError(
                f"{file.path.name}: This CLIP-G lacks text_projection, without which SDXL cannot use it; choose a "
                "CLIP-G file that has it (CLIPTextModelWithProjection), or an SDXL checkpoint."
            )
    return chosen


def with_text_encoders(checkpoint: Mapping[str, Tensor], chosen: Mapping[str, TextFile]) -> dict[str, Tensor]:
    """Returns the checkpoint's weights with these text encoders in place of its own."""
    sdxl = _is_sdxl(checkpoint)
    weights = dict(checkpoint)
    for name, file in chosen.items():
        replaced = _SDXL_PREFIXES[name] if sdxl else TEXT_PREFIXES
        weights = {key: tensor for key, tensor in weights.items() if not key.startswith(replaced)}
        prefix = _sdxl_prefix(name, file) if sdxl else OPENCLIP_PREFIX if file.is_openclip else CLIP_PREFIX
        weights |= {prefix + key: tensor for key, tensor in file.weights.tensors.items()}
    return weights


def _sdxl_prefix(name: str, file: TextFile) -> str:
    if name == "clip_l":
        return SDXL_CLIP_L_PREFIX
    return SDXL_CLIP_G_PREFIX if file.is_openclip else DIFFUSERS_PARTS["text_2"]


def text_metadata(chosen: Mapping[str, TextFile]) -> dict[str, str] | None:
    """Returns the header of the only text encoder; of SDXL's two, the shapes tell all."""
    headers = {id(file): file.weights.metadata for file in chosen.values()}
    return next(iter(headers.values())) if len(headers) == 1 and "clip_h" in chosen else None
