"""A second stream for what runs beside the main line of a captured graph: the capture turns it into a branch.

Both streams take memory from the graph's pool. A value of the main stream that a branch reads must live until the
branch is joined, or the main line could be given its memory. So `joined` takes such values, too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """One stream per device and process, because each stream keeps separate memory in PyTorch's cache."""
    return torch.cuda.Stream(device)


def beside(operation: OpOverload, x: Tensor, *others: Any) -> Tensor:
    """operation(x, *others), which need not be done before what follows. It begins when all before it is done."""
    if not x.is_cuda:
        return operation(x, *others)
    side = _side(x.device)
    side.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(side):
        return operation(x, *others)


def joined(result: Tensor, *inputs: Tensor) -> Tensor:
    """The result of `beside`, which was given `inputs`; what follows waits for it."""
    if result.is_cuda:
        torch.cuda.current_stream(result.device).wait_stream(_side(result.device))
    return result
