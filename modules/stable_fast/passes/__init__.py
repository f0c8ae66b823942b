"""The fusion passes, in the order in which they run."""

from modules.stable_fast.passes import cleanup
from modules.stable_fast.passes.base import FusionPass

PASSES: tuple[FusionPass, ...] = (cleanup.PASS,)
