"""Builds networks without memory or initial values, and gives them the weights of a file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modules.core.errors import ModelFileError
from modules.loader.foreign import SUPPORTED

_DROP_EVERY = 64 * 2**20  # bytes converted between two releases of the mapped file's pages


class _SkipInit(TorchFunctionMode):
    """Leaves parameters as they are: on the meta device random numbers cost a second of imports and mean nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def empty_weights() -> Generator[None]:
    """Networks constructed inside have shapes but no weights (meta device); `fill_network` gives them some."""
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
    """Gives an empty (meta) module its weights: as they lie in the file where they fit, else converted one by one."""
    _check_names(module.state_dict(), state, network)
    converted: dict[str, Tensor] = {}
    pending = 0
    for name, tensor in state.items():
        weight = tensor.to(device=device, dtype=dtype)
        converted[name] = weight
        pending += 0 if weight is tensor else tensor.nbytes
        if pending > _DROP_EVERY:
            drop_pages()
            pending = 0
    module.load_state_dict(converted, strict=True, assign=True)
    module.requires_grad_(requires_grad=False).eval()


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], network: str) -> None:
    for name in expected:
        if name not in state:
            raise ModelFileError(f"The {network} lacks {name}; the file is incomplete or of another kind. {SUPPORTED}.")
    for name, tensor in state.items():
        if name not in expected:
            raise ModelFileError(f"The {network} has the unexpected weight {name}. {SUPPORTED}.")
        if tensor.shape != expected[name].shape:
            found, wanted = list(tensor.shape), list(expected[name].shape)
            raise ModelFileError(
                f"{name} of the {network} has shape {found} where {wanted} is needed; the file is damaged."
            )
