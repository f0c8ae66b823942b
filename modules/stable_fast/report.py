"""What compiling and running did, as data, JSON and text, and the one line shown to the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """How one program came about."""

    nodes_before: int
    nodes_after: int
    matches: Mapping[str, Mapping[str, int]]
    stage_nodes: Mapping[str, int]
    trace_seconds: float
    compile_seconds: float
