"""Notices other contents of weights. Versions of tensors do not tell: `p.data.add_()` and a LoRA's merge keep them.

So each look reads all weights once, and compares checksums with those of the last look. On a GPU with Triton that takes
one launch for all weights and costs as much as reading them. Elsewhere each weight is summed by itself. There is no
sampling: a change of a single element is always noticed. A change of many is missed only if its checksum is the same by
chance (one in 2**32 or rarer on a GPU) and its version is the same too. A plain sum, as it is taken elsewhere, is also
the same if elements only change places.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.stable_fast.kernels.checksum import ChecksumTable, is_dense
from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.refusals import NO_REFUSALS, REFUSALS
from modules.stable_fast.kernels.triton_import import HAS_TRITON

log = logging.getLogger(__name__)

# Whole numbers as wide as the elements of a tensor, by bytes.
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Contents:
    """The contents of weights, by name, at the last look. A weight may have several names."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        names: dict[int, list[str]] = defaultdict(list)
        for name, tensor in weights.items():
            names[id(tensor)].append(name)
        self._tensors = list({id(tensor): tensor for tensor in weights.values()}.values())
        self._names = [names[id(tensor)] for tensor in self._tensors]
        self._places = places_of(self._tensors)
        self._versioned = [number for number, x in enumerate(self._tensors) if not x.is_inference()]
        self._versions = self._versions_now()
        self._sums = _sums_of(self._tensors)

    def moved(self) -> bool:
        """Whether a weight lies elsewhere in memory, or in another form. `start` may not be called then."""
        return places_of(self._tensors) != self._places

    def start(self) -> None:
        """Starts to read all weights. A GPU does so while the CPU goes on."""
        for sums, _ in self._sums:
            sums.start()

    def finish(self) -> set[str]:
        """The names of the weights with another checksum than at the last `finish`. Waits for what `start` began."""
        return self._named(numbers[number] for sums, numbers in self._sums for number in sums.finish())

    def by_version(self) -> set[str]:
        """The names of the weights whose versions tell that they were written since the last time. Reads no weight."""
        before, self._versions = self._versions, self._versions_now()
        if self._versions == before:
            return set()
        pairs = zip(self._versioned, self._versions, before, strict=True)
        return self._named(number for number, version, earlier in pairs if version != earlier)

    def _named(self, numbers: Iterable[int]) -> set[str]:
        return {name for number in numbers for name in self._names[number]}

    def _versions_now(self) -> list[int]:
        return [self._tensors[number]._version for number in self._versioned]


def places_of(tensors: Iterable[Tensor]) -> list[list[Any]]:
    """Where tensors lie in memory, and in which form."""
    tensors = list(tensors)
    return [
        [x.data_ptr() for x in tensors],
        [x.shape for x in tensors],
        [x.stride() for x in tensors],
        [x.dtype for x in tensors],
    ]


class _Sums(Protocol):
    """The checksums of some tensors, each of which lies where it lay before."""

    def start(self) -> None: ...

    def finish(self) -> Iterable[int]:
        """The numbers of the tensors whose sum is another one than at the last look."""
        ...


def _sums_of(tensors: Sequence[Tensor]) -> list[tuple[_Sums, list[int]]]:
    """What sums the tensors of each device, and their numbers."""
    groups: dict[tuple[torch.device, bool], list[int]] = defaultdict(list)
    for number, x in enumerate(tensors):
        groups[x.device, HAS_TRITON and runs_kernels(x) and is_dense(x)].append(number)
    return [
        (_by_kernel(group) if is_dense_there else _Separate(group), numbers)
        for (_, is_dense_there), numbers in groups.items()
        for group in [[tensors[number] for number in numbers]]
    ]


def _by_kernel(tensors: Sequence[Tensor]) -> _Sums:
    try:
        return _AtOnce(tensors)
    except NO_REFUSALS:
        raise
    except REFUSALS as error:
        log.info("Weights are summed one by one, since the kernel for all of them fails: %s", error)
        return _Separate(tensors)


class _AtOnce(_Sums):
    """By one kernel. The sums of the last look stay on the GPU, and only whether they differ is waited for."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._table = ChecksumTable(tensors)
        self._last = self._table.sums()
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        self._new = self._table.sums()
        self._differ = self._new != self._last
        self._is_other = self._differ.any()

    def finish(self) -> Iterable[int]:
        if not self._is_other.item():
            return ()
        self._last = self._new
        return set(self._table.owners[self._differ.cpu()].tolist())


class _Separate(_Sums):
    """One by one, with PyTorch's own operators."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._last = sums_of_bits(tensors)

    def start(self) -> None:
        """Nothing runs ahead of `finish`."""

    def finish(self) -> Iterable[int]:
        before, self._last = self._last, sums_of_bits(self._tensors)
        return [number for number, total in enumerate(self._last) if total != before[number]]


@torch.no_grad()
def sums_of_bits(tensors: Sequence[Tensor]) -> list[int]:
    """The sum of the bits of each tensor of one device, taken as whole numbers. The device is waited for once."""
    return torch.stack([_sum_of_bits(x) for x in tensors]).tolist() if tensors else []


def _sum_of_bits(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(_WHOLE[real.element_size()]).sum(dtype=torch.int64)
