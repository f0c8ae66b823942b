"""Decides by measuring whether fused steps are worth it, on devices where they run in plain PyTorch."""

from __future__ import annotations

PAIRS = 5
MARGIN = 1.05  # the steps of two equal programs may differ by that much
SHORT_MS = 100.0  # a picture of shorter steps is done in a second or two, either way


class Trial:
    """Compares fused steps with eager ones at one set of sizes, pair by pair, until it is `over`.

    It is `lost` if after five pairs each eager step was faster than each fused one: for equal programs, chance does
    that once in 252 trials. The trial is over before that if any fused step keeps up, mostly after one pair.
    """

    def __init__(self) -> None:
        self.over = False
        self._fused: list[float] = []
        self._eager: list[float] = []

    def wants_eager(self, fused_ms: float) -> bool:
        """Whether an eager step has to be timed too, after a fused step of this duration."""
        self.over = self.over or fused_ms < SHORT_MS
        return not self.over

    def add(self, fused_ms: float, eager_ms: float) -> None:
        self._fused.append(fused_ms)
        self._eager.append(eager_ms)
        self.over = not self._is_behind or len(self._fused) == PAIRS

    @property
    def lost(self) -> bool:
        return self.over and self._is_behind

    @property
    def _is_behind(self) -> bool:
        return bool(self._fused) and min(self._fused) > max(self._eager) * MARGIN

    @property
    def reason(self) -> str:
        """Why these sizes run eagerly."""
        return f"here an eager step takes {min(self._eager):.1f} ms, and a fused step {min(self._fused):.1f} ms"
