"""A checksum of each of a network's tensors, which tells whether its contents changed.

Versions of tensors do not tell: `p.data.add_()` and the merge of a LoRA leave them as they are. On a GPU with Triton,
one launch reads all tensors (kernels/checksum.py). Elsewhere PyTorch sums each tensor.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from modules.stable_fast.kernels.checksum import can_read, launch_checksums, table_of
from modules.stable_fast.kernels.launch import FAULTS

log = logging.getLogger(__name__)

# Whole numbers as wide as the elements of a tensor, by bytes.
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_COLUMNS = 1021  # a prime, so that few weights have rows that lie above each other

ByDevice = dict[torch.device, dict[str, Tensor]]


class Checksums:
    """Sums the contents of tensors again and again. The tensors must stay where they are."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        by_launch: ByDevice = defaultdict(dict)
        self._each: ByDevice = defaultdict(dict)
        for name, tensor in tensors.items():
            (by_launch if can_read(tensor) else self._each)[tensor.device][name] = tensor
        self._tables = [(table_of(list(group.values())), len(group)) for group in by_launch.values()]
        self.names = [name for groups in (by_launch, self._each) for group in groups.values() for name in group]
        try:
            self._launch()
        except torch.AcceleratorError:
            raise
        except FAULTS as error:
            log.warning("Stable-Fast lets PyTorch read the weights, which takes longer: %s", error)
            self._tables = []
            for device, group in by_launch.items():
                self._each[device] |= group
            self.names = [name for group in self._each.values() for name in group]

    @torch.no_grad()
    def start(self) -> list[Tensor]:
        """Starts to sum, in the order of `names`. GPUs go on while Python does something else."""
        each = [torch.stack([_sum_of_bits(x) for x in group.values()]) for group in self._each.values()]
        return self._launch() + each

    def _launch(self) -> list[Tensor]:
        return [launch_checksums(table, count) for table, count in self._tables]


def finish(started: list[Tensor]) -> list[int]:
    """The sums that `Checksums.start` began. Waits for the GPU."""
    return [total for sums in started for total in sums.tolist()]


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """The elements as whole numbers in rows of `_COLUMNS`, and the sum of each column times a number of its own."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    whole = real.view(_WHOLE[real.element_size()]).flatten()
    rows = whole.numel() // _COLUMNS
    if not rows:
        return (whole * _odd_numbers(tensor.device)[: whole.numel()]).sum()
    columns = whole[: rows * _COLUMNS].view(rows, _COLUMNS).sum(0, dtype=torch.int64)
    rest = whole[rows * _COLUMNS :]
    columns[: len(rest)] += rest
    return (columns * _odd_numbers(tensor.device)).sum()


@cache
def _odd_numbers(device: torch.device) -> Tensor:
    """A number for each column."""
    return torch.arange(1, 2 * _COLUMNS, 2, device=device)
