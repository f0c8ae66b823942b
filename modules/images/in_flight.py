"""Pictures whose pixels are still on their way from the GPU, so that the next work can be given to it meanwhile."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from modules.images.convert import to_8_bit_pixels


class PixelsInFlight:
    """One picture that a GPU may still compute. Its bytes are copied to the CPU as soon as they are there."""

    def __init__(self, image: Tensor) -> None:
        """`image` [1, 3, H, W] in -1..1. The caller may overwrite it with later work on the current stream."""
        (pixels,) = to_8_bit_pixels(image)
        self._finite = _on_cpu(torch.isfinite(image).all())
        self._pixels = _on_cpu(pixels)
        self._done = torch.cuda.Event(blocking=True) if image.is_cuda else None
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(image.device))

    def wait(self) -> Image.Image | None:
        """Waits for the picture. Returns None if it contains values that are not finite. Any thread may call this."""
        if self._done is not None:
            self._done.synchronize()
        return Image.fromarray(self._pixels.numpy()) if bool(self._finite) else None


def _on_cpu(tensor: Tensor) -> Tensor:
    """Copies a tensor of a GPU to pinned memory, without waiting for the copy."""
    return tensor.to("cpu", non_blocking=tensor.is_cuda)
