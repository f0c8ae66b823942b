"""Results for many timesteps, packed so that one copy passes all values of a timestep to a captured graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from modules.stable_fast.runtime.program import Values

ROW_ALIGNMENT = 64  # elements, so that each vector of a packed row allows vectorised loads

Row = Mapping[torch.dtype, Tensor]
Key = TypeVar("Key", bound=Hashable)


class RowTable(Generic[Key]):
    """One packed row of named values for each key. `hold` copies a row to the addresses that captured graphs read."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._places: dict[str, tuple[torch.dtype, int, tuple[int, ...]]] = {}
        self._held: dict[torch.dtype, Tensor] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """The keys without a row, once each."""
        return [key for key in dict.fromkeys(keys) if key not in self._rows]

    def add(self, keys: Sequence[Key], results: Mapping[str, Tensor]) -> None:
        """Packs results [keys * n, ...], which hold n entries for each key, key by key."""
        packed = self._pack(results, len(keys))
        for index, key in enumerate(keys):
            self._rows[key] = {dtype: table[index] for dtype, table in packed.items()}

    def _pack(self, results: Mapping[str, Tensor], count: int) -> dict[torch.dtype, Tensor]:
        pieces: dict[torch.dtype, list[Tensor]] = {}
        used: dict[torch.dtype, int] = {}
        for name, value in results.items():
            flat = value.reshape(count, -1)
            shape = (value.shape[0] // count, *value.shape[1:])
            self._places[name] = (value.dtype, used.get(value.dtype, 0), shape)
            padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % ROW_ALIGNMENT))
            pieces.setdefault(value.dtype, []).append(padded)
            used[value.dtype] = used.get(value.dtype, 0) + padded.shape[1]
        return {dtype: torch.cat(parts, dim=1) for dtype, parts in pieces.items()}

    def clear(self) -> None:
        self._rows.clear()

    def trim(self, kept: int) -> None:
        """Clears the table if it has more than `kept` rows."""
        if len(self._rows) > kept:
            self.clear()

    def values(self, key: Key) -> Values:
        """The named values [n, ...] of a key, without copies. Empty if nothing was added for the key."""
        return self._unpack(self._rows.get(key, {}))

    def hold(self, key: Key) -> None:
        """Copies a key's row to the buffers behind `held`."""
        for dtype, row in self._rows.get(key, {}).items():
            if dtype in self._held:
                self._held[dtype].copy_(row)
            else:
                self._held[dtype] = new_buffer(row)

    def held(self) -> Values:
        """The named values of the row last given to `hold`, at addresses that stay the same."""
        return self._unpack(self._held)

    def _unpack(self, row: Row) -> Values:
        found: Values = {}
        for name, (dtype, start, shape) in self._places.items() if row else ():
            count = torch.Size(shape).numel()
            found[name] = row[dtype][start : start + count].view(shape)
        return found


def new_buffer(value: Tensor) -> Tensor:
    """A copy that can be written to later, inside and outside inference mode."""
    with torch.inference_mode(mode=False), torch.no_grad():
        return torch.empty_like(value).copy_(value)
