"""Errors that count as refusals, and tensors that are too large for 32-bit offsets."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.refusals import Unsupported, require_32_bit, unsupported_on_error


def test_a_library_without_the_shape_is_unsupported():
    with pytest.raises(Unsupported, match="flash attention refuses"):
        with unsupported_on_error("flash attention"):
            raise RuntimeError("was not enabled for build")
    with pytest.raises(torch.OutOfMemoryError):
        with unsupported_on_error("flash attention"):
            raise torch.OutOfMemoryError("full")


def test_tensors_beyond_32_bit_offsets_are_refused():
    """The decoder's last level at 4096 x 4096, as an expanded tensor that takes no memory."""
    large = torch.zeros(1, 1, 1, 1).expand(1, 128, 4096, 4096)
    with pytest.raises(Unsupported, match="32-bit"):
        require_32_bit(large)
    require_32_bit(large[..., 1:])
