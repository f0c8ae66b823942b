"""Builds networks without allocating or initialising memory, and fills them with the weights of a file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modules.core.errors import ModelFileError, quoted
from modules.loader.detection.foreign import SUPPORTED
from modules.loader.files.open_file import require_weights, same_but_for_ones

_DROP_EVERY = 64 * 2**20  # bytes to convert before releasing the mapped file's pages again


class _SkipInit(TorchFunctionMode):
    """Skips initialisation: random numbers are pointless on the meta device and would cost a second of imports."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def empty_weights() -> Generator[None]:
    """Builds networks inside the block on the meta device, with shapes only; `fill_network` adds the weights."""
    with torch.device("meta"), _SkipInit():
        yield


def fill_network(
    module: nn.Module,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    drop_pages: Callable[[], None],
    network: str,
) -> None:
    """Fills an empty (meta) module: uses weights directly from the file if they fit, else converts them one by one."""
    state = fitted(module.state_dict(), state, network)
    converted: dict[str, Tensor] = {}
    pending = 0
    for name, tensor in state.items():
        weight = tensor.to(device=device, dtype=dtype, memory_format=layout_on(tensor, device))
        converted[name] = weight
        pending += 0 if weight is tensor else tensor.nbytes
        if pending > _DROP_EVERY:
            drop_pages()
            pending = 0
    module.load_state_dict(converted, strict=True, assign=True)
    module.requires_grad_(requires_grad=False).eval()


def layout_on(tensor: Tensor, device: torch.device) -> torch.memory_format:
    """Chooses channels-last, the fastest layout for convolutions on a GPU; loading this way avoids a second copy."""
    return torch.channels_last if device.type == "cuda" and tensor.dim() == 4 else torch.preserve_format


def fitted(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Reshapes the weights to fit the network. Raises ModelFileError for names, types or shapes that do not fit.

    Matrices saved as 1x1 convolutions count as the same weights, and vice versa.
    """
    for name in expected:
        if name not in state:
            raise ModelFileError(f"The {network} lacks {name}; the file is incomplete or of another kind. {SUPPORTED}.")
    fit: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name not in expected:
            raise ModelFileError(f"The {network} has the unexpected weight {quoted(name)}. {SUPPORTED}.")
        require_weights(name, tensor)
        wanted = expected[name].shape
        if not same_but_for_ones(tensor.shape, wanted):
            raise ModelFileError(
                f"{name} of the {network} has shape {list(tensor.shape)} where {list(wanted)} is needed, "
                f"so the file is of another kind. {SUPPORTED}."
            )
        fit[name] = tensor if tensor.shape == wanted else tensor.reshape(wanted)
    # In the network's order, weights that work together are neighbours in memory, and leave whole gaps when they move.
    return {name: fit[name] for name in expected}
