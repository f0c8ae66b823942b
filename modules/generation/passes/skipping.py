"""Decides in which steps of a pass the UNet's outer blocks run alone, on deep features of the last full step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

OUTER_BLOCKS = 1  # the first input block and the last output block, as in DeepCache


def reusing_steps(skip: int, active: Sequence[Hashable]) -> list[bool]:
    """Tells for each step whether it may reuse features: `skip` steps after each full one, the first and last never.

    `active` says for each step which ControlNets are. A step is full if they differ from those of a neighbour.
    """
    last = len(active) - 1
    return [
        0 < step < last and step % (skip + 1) > 0 and len(set(active[step - 1 : step + 2])) == 1
        for step in range(last + 1)
    ]
