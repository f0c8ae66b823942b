"""Watches for which prompts Stable-Fast evaluates a prompt stage."""

from __future__ import annotations

import pytest
from torch import Tensor

from modules.stable_fast.runtime.execution import Execution


def recorded_evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Returns a list to which the context of each evaluation of a prompt stage is added from now on."""
    seen: list[Tensor] = []
    original = Execution._evaluate_prompt

    def evaluate(execution: Execution, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(inputs["context"])
        return original(execution, inputs)

    monkeypatch.setattr(Execution, "_evaluate_prompt", evaluate)
    return seen
