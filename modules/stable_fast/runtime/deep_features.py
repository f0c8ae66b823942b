"""The deep features of a network's last full step, for steps that run its outer blocks only."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from modules.stable_fast.runtime.execution import in_program_layout
from modules.stable_fast.runtime.row_table import new_buffer

Step = Callable[..., Any]  # of the inputs that change from step to step


class DeepFeatures:
    """One buffer for each set of sizes. It keeps its address, since captured graphs read and write it there.

    `made_for` tells what the features in use were computed from; None if there are none.
    """

    def __init__(self) -> None:
        self._buffers: dict[Hashable, Tensor] = {}
        self.made_for: Hashable = None

    def __contains__(self, sizes: Hashable) -> bool:
        return sizes in self._buffers

    def __getitem__(self, sizes: Hashable) -> Tensor:
        return self._buffers[sizes]

    def forget(self) -> None:
        """Lets no later step use the features kept so far."""
        self.made_for = None

    def release(self) -> None:
        """Frees the buffers. The graphs that use them must be released, too."""
        self.forget()
        self._buffers.clear()

    def drop_oldest(self, most: int) -> list[Hashable]:
        """Frees all but the `most` newest buffers. Returns their sizes, whose graphs must be released, too."""
        oldest = list(self._buffers)[:-most]
        for sizes in oldest:
            del self._buffers[sizes]
        return oldest

    def _keep(self, sizes: Hashable, deep: Tensor) -> None:
        if sizes in self._buffers:
            self._buffers[sizes].copy_(deep)
        else:
            self._buffers[sizes] = new_buffer(in_program_layout(deep))

    def keeping(self, sizes: Hashable, full: Step) -> Step:
        """A full step, which returns output and deep features, as one that keeps the features and returns the output.

        Its first run makes the buffer, so it must not be captured.
        """

        def step(*inputs: Any) -> Tensor:
            output, deep = full(*inputs)
            self._keep(sizes, deep)
            return output

        return step

    def taking(self, sizes: Hashable, outer: Step) -> Step:
        """A step of the outer blocks, which takes deep features last, as one that takes those kept."""
        deep = self._buffers[sizes]

        def step(*inputs: Any) -> Tensor:
            return outer(*inputs, deep)

        return step
