"""Finds the textual inversion files mentioned in prompts, and reads their vectors in every known format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders
from modules.loader.files.state_dict import read_weights
from modules.text.embedding_names import EmbeddingNames

_FAMILY_OF_WIDTH = {768: "SD1.x", 1024: "SD2.x", 1280: "SDXL"}
# An embedding file has one tensor per text encoder; a file with more tensors is a misplaced model.
_MOST_TENSORS = 8
_OWN_NAMES = ("string_to_param.", "emb_params")


class EmbeddingLibrary:
    """The embedding files of the model folders."""

    def __init__(self, folders: ModelFolders) -> None:
        self._names = EmbeddingNames(folders)

    def aliases(self) -> dict[str, str]:
        """Maps every accepted spelling in lower case to the listed file name."""
        return self._names.aliases()

    def stamps(self, texts: Iterable[str]) -> tuple[tuple[str, int], ...]:
        """Identifies the files that these texts may mention, in their present state."""
        said = "\n".join(texts).lower().replace("\\", "")  # a backslash in front of a bracket is not part of the name
        paths = {self._names.find(alias) for alias in self.aliases() if alias in said}
        return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in paths if path.exists()))

    def get(self, name: str, width: int, widths: Sequence[int] = ()) -> Tensor:
        """Returns the vectors [n, width] of an embedding in float32. Raises ModelFileError.

        `widths`: the widths of all of the model's text encoders.
        """
        return read_embedding(self._names.find(name), width, widths)


def read_embedding(path: Path, width: int, widths: Sequence[int] = ()) -> Tensor:
    """Reads the vectors [n, width] of one file.

    The file contains `string_to_param` (A1111), `emb_params` (kohya), one tensor per encoder (`clip_l`, `clip_g`),
    or one tensor named after its token (diffusers). The right tensor is selected by shape. The file must hold vectors
    for each of the model's encoders (`widths`), and none for a wider one, which only another family has.
    """
    tensors = _tables(read_weights(path))
    if not 1 <= len(tensors) <= _MOST_TENSORS:
        raise ModelFileError(f"{path.name} is not a textual inversion embedding; remove it from the embeddings folder.")
    found, needed = {tensor.shape[-1] for tensor in tensors}, {width, *widths}
    if needed - found or max(found) > max(needed):
        raise ModelFileError(_wrong_width(path, tensors, sorted(needed)))
    matching = [tensor for tensor in tensors if tensor.shape[-1] == width]
    if len(matching) > 1:
        raise ModelFileError(f"{path.name} holds {len(matching)} embeddings; use a file with one.")
    vectors = matching[0].reshape(-1, width).to(torch.float32, copy=True)
    if len(vectors) == 0 or not bool(vectors.isfinite().all()):
        raise ModelFileError(f"The vectors of {path.name} are empty or not finite numbers; use another copy.")
    return vectors


def _tables(state: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the tensors that may be vectors; in A1111 and kohya files, only those with that format's name."""
    named = {name: tensor for name, tensor in state.items() if name.startswith(_OWN_NAMES)}
    plain = [_without_ones(tensor) for tensor in (named or state).values()]
    return [tensor for tensor in plain if tensor.ndim in (1, 2)]


def _without_ones(tensor: Tensor) -> Tensor:
    """Squeezes [1, n, width] and [n, width, 1, 1], which are also valid tables."""
    while tensor.ndim > 2 and 1 in (tensor.shape[0], tensor.shape[-1]):
        tensor = tensor[0] if tensor.shape[0] == 1 else tensor[..., 0]
    return tensor


def _wrong_width(path: Path, tensors: list[Tensor], needed: Sequence[int]) -> str:
    found = sorted({tensor.shape[-1] for tensor in tensors})
    families = "SDXL" if 1280 in found else " / ".join(_FAMILY_OF_WIDTH.get(n, "another model") for n in found)
    widest = needed[-1]  # of all families, only SDXL has encoders of several widths
    needs = _listed(needed) + (f" ({_FAMILY_OF_WIDTH[widest]})" if widest in _FAMILY_OF_WIDTH else "")
    widths = _listed(found)
    return (
        f"Embedding {path.name} has vectors of width {widths}, so it is for {families}; "
        f"this checkpoint needs width {needs}: use an embedding made for it."
    )


def _listed(widths: Sequence[int]) -> str:
    return " and ".join(map(str, widths))
